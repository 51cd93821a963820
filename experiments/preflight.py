"""What can be known of a grid's runs before the first of them begins: keys, values, subsets, exits."""

from collections.abc import Sequence
from typing import Any

from experiments.grid import Run
from fairseq_skd.compat import compose
from fairseq_skd.corpora.subset import read_manifest
from fairseq_skd.encoders.loading import load_pretrained
from fairseq_skd.encoders.pretrained import PretrainedEncoder
from fairseq_skd.errors import UserError
from fairseq_skd.models.exits import check_student_layers
from fairseq_skd.training.settings import check_composed


def check_runs(runs: Sequence[Run]) -> None:
    """Refuse what would fail only after other runs were trained.

    Raises:
        UserError: a key that a configuration lacks, a value out of range, a subset without manifest or labels, an
            encoder that cannot be used, or an exit that a model will not have.
    """
    first = {run.arm: run for run in reversed(runs)}  # the seeds of an arm differ in nothing that is checked
    encoders: dict[str, PretrainedEncoder] = {}
    seen: set[tuple[str, ...]] = set()
    for arm in dict.fromkeys(run.arm for run in runs):
        try:
            _check(first[arm], encoders, seen)
        except UserError as error:
            raise UserError(f"arm {arm}: {error}") from error


def _check(run: Run, encoders: dict[str, PretrainedEncoder], seen: set[tuple[str, ...]]) -> None:
    training = check_composed(_composed(run.train))
    for command in (*run.decode.values(), *run.align.values()):
        keys = tuple(part.partition("=")[0] for part in command)
        if keys not in seen:  # what differs otherwise is subsets, exits and paths
            _composed(command)
            seen.add(keys)
    for subset in dict.fromkeys(subset for subset, _ in run.decode):
        read_manifest(run.data.manifests, subset, f"the grid's subset {subset}")
        missing = next((file for file in run.data.files(subset) if not file.is_file()), None)
        if missing is not None:
            raise UserError(f"the grid's subset {subset}: label file {missing} does not exist")
    model = training.model
    if model.w2v_path not in encoders:
        encoders[model.w2v_path] = load_pretrained(model.w2v_path)
    encoder = encoders[model.w2v_path]
    if bool(training.task.normalize) != encoder.normalize:
        raise UserError(f"task.normalize={training.task.normalize}, but the encoder has normalize={encoder.normalize}")
    if model.keep_layers != 0:
        encoder = encoder.first_layers(model.keep_layers)
    exits = {encoder.depth, *check_student_layers(model.student_layers, encoder.depth)}
    for layer in run.exits:
        if layer not in exits:
            raise UserError(f"exits has {layer}, the model will have {', '.join(map(str, sorted(exits)))}")


def _composed(command: Sequence[str]) -> Any:
    """The configuration of a command: python -m module --config-dir D --config-name N key=value ..."""
    folder, name = (command[command.index(option) + 1] for option in ("--config-dir", "--config-name"))
    overrides = command[command.index(name) + 1 :]
    return compose(folder, name, [one for one in overrides if not one.startswith("hydra.")])
