"""Which file of a Hugging Face folder says how audio is prepared, and how to override it."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from fairseq_skd.encoders.checkpoint import load_pretrained
from fairseq_skd.errors import UserError
from fairseq_skd.models import SkdCtc
from fairseq_skd.models.trained import open_trained
from tests.builders import CtcTask, model_config, write_pretrained
from tests.encoders.checkpoints import refusal
from tests.encoders.peers import edit
from tests.exporting.exports import run
from tests.exporting.exports import write as write_checkpoint

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"


def write(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        (folder / f"{name}_config.json").write_text(json.dumps(content))
    return folder


def test_only_the_nested_file(folder: Path) -> None:
    """F21: wav2vec2-base-ls960h; the file was ignored."""
    transformers = pytest.importorskip("transformers")
    settings = {"do_normalize": True, "sampling_rate": 8000, "return_attention_mask": False}
    write(folder, processor={"feature_extractor": settings, "processor_class": "Wav2Vec2Processor"})
    encoder = load_pretrained(folder)
    assert (encoder.normalize, encoder.sample_rate) == (True, 8000)
    assert encoder.normalize_said_by == f"{folder / PROCESSOR} says do_normalize=true"
    theirs = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    assert (theirs.do_normalize, theirs.sampling_rate) == (encoder.normalize, encoder.sample_rate)


def test_two_files(folder: Path) -> None:
    """transformers 4 obeys preprocessor_config.json, transformers 5 processor_config.json."""
    write(folder, preprocessor={"do_normalize": True}, processor={"feature_extractor": {"do_normalize": True}})
    assert load_pretrained(folder).normalize_said_by == f"{folder / PREPROCESSOR} says do_normalize=true"
    write(folder, processor={"processor_class": "Wav2Vec2Processor"})  # as older processors saved it
    assert load_pretrained(folder).normalize
    write(folder, processor={"feature_extractor": {"do_normalize": False}})
    assert refusal(folder) == (
        f"{folder}: {PREPROCESSOR} says do_normalize=true and {PROCESSOR} says do_normalize=false: correct the wrong "
        f"file, or delete it"
    )
    write(folder, processor={"feature_extractor": [1]})
    assert refusal(folder) == f"{folder / PROCESSOR}: feature_extractor is not a JSON object"
    write(folder, preprocessor={}, processor={"feature_extractor": {"do_normalize": 1}})
    assert refusal(folder) == f"{folder / PROCESSOR}: do_normalize=1 is neither true nor false"


@pytest.mark.parametrize(("norm", "normalize"), [("group", "false"), ("layer", "true")])
def test_a_guess_is_told(folder: Path, caplog: pytest.LogCaptureFixture, norm: str, normalize: str) -> None:
    edit(folder, feat_extract_norm=norm)
    with caplog.at_level(logging.INFO):
        encoder = load_pretrained(folder)
    said = f"feat_extract_norm={norm} in {folder / 'config.json'} suggests normalize={normalize}"
    assert encoder.normalize_said_by == said
    assert f"{said}; no file there says do_normalize" in caplog.text


def test_the_value_of_the_file_can_be_overridden(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """F20: transformers' converters write do_normalize=true for base models, trained without."""
    write(folder, preprocessor={"do_normalize": True})
    with pytest.raises(UserError) as refused:
        SkdCtc.build_model(model_config(folder), CtcTask())
    assert str(refused.value) == (
        f"task.normalize=False but {folder / PREPROCESSOR} says do_normalize=true: set task.normalize=true, or, if "
        f"that is wrong, model.w2v_normalize=false"
    )
    cfg = model_config(folder, w2v_normalize=False)
    with caplog.at_level(logging.INFO):
        SkdCtc.build_model(cfg, CtcTask())
    assert cfg.w2v_args.task.normalize is False  # what load, infer and export read
    assert f"model.w2v_normalize=False wins, though {folder / PREPROCESSOR} says do_normalize=true" in caplog.text
    with pytest.raises(UserError, match=r"^task\.normalize=True but model\.w2v_normalize=False: set task\.normalize="):
        SkdCtc.build_model(model_config(folder, w2v_normalize=False, normalize=True), CtcTask(normalize=True))


def test_a_checkpoint_of_fairseq_can_be_overridden(tmp_path: Path) -> None:
    hubert = write_pretrained(tmp_path / "hubert.pt", normalize=True)
    with pytest.raises(UserError, match="but the encoder was pretrained with normalize=True: set task.normalize=true"):
        SkdCtc.build_model(model_config(hubert), CtcTask())
    SkdCtc.build_model(model_config(hubert, w2v_normalize=False), CtcTask())


@pytest.mark.slow
def test_a_fine_tuned_folder_with_the_nested_file(tmp_path: Path) -> None:
    folder = run(write_checkpoint(tmp_path / "checkpoint_best.pt", style="pre-LN"), 2, "hf", tmp_path / "out")
    settings = json.loads((folder / PREPROCESSOR).read_text())
    (folder / PREPROCESSOR).unlink()
    write(folder, processor={"feature_extractor": {**settings, "do_normalize": False, "sampling_rate": 8000}})
    waveforms = open_trained(folder).waveforms
    assert (waveforms.normalize, waveforms.sample_rate) == (False, 8000)
