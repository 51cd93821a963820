"""What can be known of a grid's runs before the first of them begins: keys, subsets, exits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.grid import Run
from fairseq_skd.compat import compose
from fairseq_skd.corpora.subset import read_manifest
from fairseq_skd.encoders.loading import load_pretrained
from fairseq_skd.errors import UserError


def check_runs(runs: Sequence[Run]) -> None:
    """Refuse what would fail only after other runs were trained.

    Raises:
        UserError: a key that a configuration lacks, a subset without manifest or labels, an encoder that cannot be
            used, or an exit that a model will not have.
    """
    first = {run.arm: run for run in reversed(runs)}  # the seeds of an arm differ in nothing that is checked
    depths: dict[str, int] = {}
    for arm in dict.fromkeys(run.arm for run in runs):
        try:
            _check(first[arm], depths)
        except UserError as error:
            raise UserError(f"arm {arm}: {error}") from error


def _check(run: Run, depths: dict[str, int]) -> None:
    training = _composed(run.train)
    for command in (*run.decode.values(), *run.align.values()):
        _composed(command)
    for subset in dict.fromkeys(subset for subset, _ in run.decode):
        _check_subset(Path(training.task.data), training.task, subset)
    encoder = training.model.w2v_path
    if encoder not in depths:
        depths[encoder] = load_pretrained(encoder).depth
    depth = training.model.keep_layers or depths[encoder]
    exits = [*training.model.student_layers, depth]
    for layer in run.exits:
        if layer not in exits:
            raise UserError(f"exits has {layer}, the model will have {', '.join(map(str, sorted(exits)))}")


def _check_subset(data: Path, task: Any, subset: str) -> None:
    read_manifest(data, subset, f"the grid's subset {subset}")
    for extension in [task.labels] if isinstance(task.labels, str) else task.labels:
        labels = Path(task.label_dir or data) / f"{subset}.{extension}"
        if not labels.is_file():
            raise UserError(f"the grid's subset {subset}: label file {labels} does not exist")


def _composed(command: Sequence[str]) -> Any:
    """The configuration of a command: python -m module --config-dir D --config-name N key=value ..."""
    folder, name = (command[command.index(option) + 1] for option in ("--config-dir", "--config-name"))
    overrides = command[command.index(name) + 1 :]
    return compose(folder, name, [one for one in overrides if not one.startswith("hydra.")])
