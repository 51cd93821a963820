"""What is kept of a grid's runs: a file of each, a line of each; and how far each of them is."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import attempts
from experiments.folder import began_with, begun, data_hash, foreign, locked
from experiments.grid import Run, aligned, decoded, shown
from fairseq_skd.files import replacing
from fairseq_skd.reporting.folders import read_log

RESULT = "result.json"
TRAINED = "trained"  # marks a training that had all its updates: fairseq would add one to it
_LOG = "hydra_train.log"
KEYS = (
    *("corpus", "arm", "seed", "commit", "command", "data_sha256", "encoder_sha256"),
    *("updates", "seconds", "scores", "alignment"),
)
_SCORES = ("wer", "cer", "word_errors", "words", "character_errors", "characters", "sentences", "parameters")
_TEXTS = ("hypo.word", "ref.word")  # what compare.py reads of a decoding
_COMPARED = ("subset", "by_utterance")
_ALIGNMENT = ("frame_disagreement", "spike_disagreement", "spike_miss", "offset")


class Evaluation(NamedTuple):
    """A command that follows a training, and what it leaves behind.

    Attributes:
        command: decoding, or the comparison of spikes.
        data: manifest and labels of the subset.
        texts: files that it writes beside the result.
        result: the last file that it writes.
        keys: what has to stand in it.
        log: its output; beside it is noted what made the result: the command, and a hash of the data.
    """

    command: Sequence[str]
    data: Sequence[Path]
    texts: Sequence[Path]
    result: Path
    keys: Sequence[str]
    log: Path

    def done(self) -> bool:
        """Whether the result and its texts are there, of all utterances, and made by this command of this data."""
        made_by = self.log.with_suffix(".txt")
        if not made_by.is_file() or made_by.read_text(encoding="utf-8") != self._made_by():
            return False
        found = read_record(self.result, self.keys)
        return all(file.is_file() for file in self.texts) and found is not None and not found.get("not_decoded")

    def begin(self) -> None:
        """Take away what another command left, and note this one."""
        self.result.unlink(missing_ok=True)
        with replacing(self.log.with_suffix(".txt")) as beside:
            beside.write_text(self._made_by(), encoding="utf-8")

    def _made_by(self) -> str:
        return f"{shown(self.command)}\n{data_hash(self.data)}\n"


def evaluations(run: Run) -> list[Evaluation]:
    """What follows the training of a run, in order."""
    decodings = []
    for (subset, layer), command in run.decode.items():
        files = run.data.files(subset)
        log = run.folder / f"decode-{subset}-layer{layer}.log"
        summary = _summary(run, subset, layer)
        texts = [summary.with_name(name) for name in _TEXTS]
        decodings.append(Evaluation(command, files, texts, summary, _SCORES, log))
    comparisons = []
    for layer, command in run.align.items():
        files = run.data.files(list(run.decode)[-1][0])  # the last subset
        log = run.folder / f"align-layer{layer}.log"
        comparisons.append(Evaluation(command, files, [], _analysis(run, layer), (*_ALIGNMENT, *_COMPARED), log))
    return decodings + comparisons


def _summary(run: Run, subset: str, layer: int) -> Path:
    return decoded(run.folder, subset, layer) / "summary.json"


def _analysis(run: Run, layer: int) -> Path:
    return aligned(run.folder, layer) / "align.json"


def is_trained(folder: Path) -> bool:
    """Whether the run in a folder had all its updates; also of a training that outlived its job."""
    return read_result(folder) is not None or (folder / TRAINED).is_file() or _says_done(folder / _LOG)


def _says_done(log: Path) -> bool:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return any("done training in" in line for line in lines[-3:])


def state(run: Run) -> str:
    """How far a run is, for people."""
    if what := foreign(run):
        return f"its folder holds a run {what}"
    if all(step.done() for step in evaluations(run)) and read_result(run.folder) is not None:
        return "done"
    if is_trained(run.folder):
        return "trained, to be decoded or compared"
    return "begun" if begun(run) else "to do"


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of the run in a folder; None if it is not there, or is damaged and has to be made again."""
    return read_record(folder / RESULT, KEYS)


def read_record(file: Path, keys: Sequence[str]) -> dict[str, Any] | None:
    """A JSON file that has these keys, None if it is not there or is not that."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and set(keys) <= set(found) else None


def result_of(run: Run) -> dict[str, Any]:
    """The line of a run that is done."""
    scores = []
    for subset, layer in run.decode:
        summary = json.loads(_summary(run, subset, layer).read_text(encoding="utf-8"))
        scores.append({"subset": subset, "exit": layer, **{key: summary[key] for key in _SCORES}})
    alignment = []
    for layer in run.align:
        found = json.loads(_analysis(run, layer).read_text(encoding="utf-8"))
        metrics = {key: found[key] for key in _ALIGNMENT}
        alignment.append({"exit": layer, "teacher": run.needs or run.arm, "subset": found["subset"], **metrics})
    curves = read_log(run.folder / _LOG)
    return {
        "corpus": run.corpus,
        "arm": run.arm,
        "seed": run.seed,
        "commit": attempts.commits(run),
        "command": shown(run.train),
        **began_with(run),
        "updates": int(max(update for update, _ in curves["valid_loss"])),
        "seconds": attempts.spent(run),
        "scores": scores,
        "alignment": alignment,
    }


def collect(out: Path) -> None:
    """All results below ``out`` in one file, a line each; one job at a time, so that the last one writes them all."""
    with locked(out / "results.lock", wait=True):
        found = [read_result(path.parent) for path in sorted(out.glob(f"*/*/seed*/{RESULT}"))]
        with replacing(out / "results.jsonl") as beside:
            beside.write_text("".join(f"{json.dumps(one)}\n" for one in found if one is not None), encoding="utf-8")
