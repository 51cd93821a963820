"""Run two small trained checkpoints: texts, error counts, agreement, and losses of new trainings.

``python -m tests.goldens.make`` writes the results to ``expected.json``. The test compares with it.
"""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import torch

from tests.builders import write_dictionary
from tests.end_to_end.training import corpus, logged, train

torch.set_num_threads(1)  # sums then have one order

HERE = Path(__file__).parent
KINDS = ("hubert", "wavlm")
DEPTH, STUDENT = 4, 2
BATCHES = {"one": "dataset.batch_size=1", "many": "dataset.batch_size=8"}
SEARCHES = ("viterbi", "kenlm")
CASES = list(itertools.product(KINDS, (DEPTH, STUDENT), BATCHES, SEARCHES))
# Keys that differ between machines and runs.
_VARYING = (
    "checkpoint",
    "checkpoint_sha256",
    "manifest",
    "versions",
    "threads",
    "device",
    "decode_seconds",
    "real_time_factor",
)
TINY = ("common.cpu=true", "checkpoint.no_save=true", "task.normalize=false")
DROPOUTS = ("dropout_input", "final_dropout", "dropout", "attention_dropout", "activation_dropout")
LOSSES = ("loss", "ctc_teacher", "ctc_student", "skd", "alpha", "ctc", "kd", "blank_teacher", "blank_student", "gnorm")


def case_name(kind: str, layer: int, batch: str, search: str) -> str:
    return f"{kind}, {layer} layers, batch of {batch}, {search}"


def manifests(folder: Path) -> Path:
    """Write a manifest folder with the subset ``test``, whose audio is in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = (HERE / "corpus" / "test.tsv").read_text()
    (folder / "test.tsv").write_text(f"{HERE / 'corpus'}\n{listed}")
    (folder / "test.ltr").write_text((HERE / "corpus" / "test.ltr").read_text())
    write_dictionary(folder)
    return folder


def decode(data: Path, out: Path, kind: str, layer: int, batch: str, search: str) -> dict[str, Any]:
    """Decode, and return texts and ``summary.json``."""
    from fairseq_skd import infer

    keys = [f"task.data={data}", f"common_eval.path={HERE / kind}.pt", f"common_eval.results_path={out}"]
    keys += [f"decoding.layer={layer}", BATCHES[batch], "dataset.num_workers=0", "dataset.max_tokens=null"]
    if search == "kenlm":
        keys += [
            f"decoding.lexicon={HERE / 'corpus' / 'lexicon.txt'}",
            f"decoding.lmpath={HERE / 'corpus' / 'lm.arpa'}",
        ]
    infer.main(["--config-name", search, *keys])
    names = ("hypo.word", "hypo.units", "ref.word", "ref.units")
    texts = {name: (out / name).read_text().splitlines() for name in names}
    return {**texts, "summary.json": _here(json.loads((out / "summary.json").read_text()))}


def align(data: Path, out: Path, kind: str) -> dict[str, Any]:
    """Align teacher and student, and return ``align.json``."""
    from fairseq_skd import align

    keys = [f"task.data={data}", f"common_eval.path={HERE / kind}.pt", f"common_eval.results_path={out}"]
    keys += ["dataset.num_workers=0", "align.resamples=500", "align.examples=[1]"]
    align.main(keys)
    return _here(json.loads((out / "align.json").read_text()))


def losses(folder: Path, kind: str, criterion: str) -> list[dict[str, float]]:
    """Train ten updates from a trained checkpoint, with masks and LayerDrop; return the losses."""
    keys = [f"task.data={corpus(folder / 'data')}", f"model.w2v_path={HERE / kind}.pretrained.pt", *TINY]
    # trained heads, because the initialisation of new heads depends on the version of fairseq
    keys += [f"checkpoint.finetune_from_model={HERE / kind}.pt"]
    keys += ["optimization.max_update=10", "common.log_interval=1", "dataset.max_tokens=32000"]
    keys += ["model.mask_prob=0.4", "model.layerdrop=0.3", "dataset.disable_validation=true"]
    # random numbers of torch's dropout depend on the version
    keys += [f"model.{name}=0" for name in DROPOUTS]
    if criterion == "kd_ctc":
        keys += ["criterion._name=kd_ctc", f"+criterion.teacher_path={HERE / kind}.pt", "model.student_layers=[]"]
        keys += [f"~criterion.{key}" for key in ("schedule", "tau", "alpha", "stop_gradient")]
    else:
        keys += [f"model.student_layers=[{STUDENT}]"]
    done = train(folder / "run", keys)
    assert done.returncode == 0, done.stdout[-3000:]
    found = logged(done.stdout, "train_inner")
    return [{name: entry[name] for name in LOSSES if name in entry} for entry in found]


def _here(value: Any) -> Any:
    """Remove values that differ between machines and runs."""
    if isinstance(value, dict):
        return {key: _here(inner) for key, inner in value.items() if key not in _VARYING}
    if isinstance(value, list):
        return [_here(inner) for inner in value]
    return re.sub(r".*/", "", value) if isinstance(value, str) and value.startswith("/") else value


def everything(folder: Path) -> dict[str, Any]:
    """Run all cases: name -> result."""
    data = manifests(folder / "data")
    found: dict[str, Any] = {}
    for number, case in enumerate(CASES):
        found[case_name(*case)] = decode(data, folder / f"decode{number}", *case)
    for kind in KINDS:
        found[f"{kind}, align"] = align(data, folder / f"align-{kind}", kind)
        for criterion in ("skd_ctc", "kd_ctc"):
            found[f"{kind}, {criterion}, losses"] = losses(folder / f"{kind}-{criterion}", kind, criterion)
    return found
