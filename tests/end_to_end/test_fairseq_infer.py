"""Try the documented argument for fairseq's own decoder in a shell and (Python 3.10) in it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import fairseq
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fairseq_skd.models import SkdCtc
from fairseq_skd.search.greedy import greedy_units
from tests.builders import CtcTask, letter_dictionary, model_config, write_corpus, write_pretrained
from tests.end_to_end.training import REPOSITORY

EXAMPLES = Path(fairseq.__file__).parent / "examples"


def documented_argument() -> str:
    """Find the line of docs/decoding.md that sets decode_layer."""
    lines = (REPOSITORY / "docs" / "decoding.md").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if "common_eval.model_overrides=" in line]
    return line


def test_the_documented_argument_reaches_hydra():
    """It passes a shell's quoting and Hydra's grammar; without quotes both versions refuse it."""
    printed = subprocess.run(
        ["sh", "-c", f"printf '%s' {documented_argument()}"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    (parsed,) = OverridesParser.create().parse_overrides([printed])
    assert parsed.key_or_group == "common_eval.model_overrides"
    assert str(parsed.value()) == "{'decode_layer': 6}"


@pytest.mark.skipif(
    sys.version_info >= (3, 11), reason="fairseq's new/infer.py does not start on Python 3.11 and newer"
)
def test_fairseqs_decoder_decodes_the_student(tmp_path):
    """On one utterance, fairseq's decoder writes the greedy output of the student."""
    data = write_corpus(tmp_path / "data", {"test": [("GO ON", 1.0)]})
    torch.manual_seed(3)
    config = model_config(write_pretrained(tmp_path / "w2v.pt", encoder_layers=8), student_layers=[6])
    model = SkdCtc.build_model(config, CtcTask()).eval()
    task = {
        **{
            "_name": "hubert_pretraining",
            "data": str(data),
            "labels": ["ltr"],
            "fine_tuning": True,
            "label_rate": -1.0,
        },
        **{"single_target": True, "pad_audio": True, "random_crop": False, "normalize": False, "sample_rate": 16000},
    }
    saved = {
        "cfg": {"model": OmegaConf.to_container(config, enum_to_str=True), "task": task},
        "args": None,
        "model": model.state_dict(),
        "task_state": {"target_dictionary": letter_dictionary()},
        "optimizer_history": [{"optimizer_name": "X", "lr_scheduler_state": {}, "num_updates": 0}],
        "extra_state": {"train_iterator": {"epoch": 1}},
        "last_optimizer_state": None,
    }
    torch.save(saved, tmp_path / "model.pt")
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "examples").symlink_to(EXAMPLES)  # infer.py imports a top-level package of that name
    results = tmp_path / "results"
    results.mkdir()
    recogniser = EXAMPLES / "speech_recognition" / "new"
    command = (
        f"exec '{sys.executable}' '{recogniser / 'infer.py'}' --config-dir '{recogniser / 'conf'}' --config-name infer "
        f"task=hubert_pretraining task.data='{data}' task.labels=[ltr] task.fine_tuning=true task.single_target=true "
        f"task.normalize=false task.pad_audio=true task.random_crop=false common_eval.path='{tmp_path / 'model.pt'}' "
        f"common_eval.results_path='{results}' decoding.results_path='{results}' dataset.gen_subset=test "
        f"common.cpu=true common.user_dir='{REPOSITORY / 'fairseq_skd'}' hydra.run.dir='{results}' "
        f"{documented_argument()}"
    )
    environment = {**os.environ, "PYTHONPATH": str(packages), "USER": "user", "PREFIX": "prefix"}
    ran = subprocess.run(
        ["sh", "-c", command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    (written,) = [*results.rglob("hypo.units*"), None][:1]
    assert written is not None, ran.stdout[-3000:]
    import soundfile

    wave, _ = soundfile.read(data / "audio" / "test0.wav", dtype="float32")
    with torch.no_grad():
        out = model(torch.from_numpy(wave).unsqueeze(0))
    expected = greedy_units(out["exit_logits"][6], out["frame_lengths"])[0]
    text = letter_dictionary().string(torch.tensor(expected, dtype=torch.long))
    assert re.sub(r"\s*\(None-0\)\s*$", "", written.read_text(encoding="utf-8")) == text
    assert expected != greedy_units(out["exit_logits"][8], out["frame_lengths"])[0]
