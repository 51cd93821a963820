"""Read the checkpoint that a training starts or resumes from, and fit it to model and dictionary.

fairseq copies the rows of a CTC head by index and never compares dictionaries. With the same
letters in another order it silently trains on; with other letters it ends in "please ensure that
the architectures match". Here a *resume* needs the checkpoint's symbols in the same order. A
*start* (``checkpoint.finetune_from_model``, or ``checkpoint.reset_optimizer=true``) takes each row
by its symbol. Programs that load our checkpoints without a trainer use the same reader.
"""

import functools
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from fairseq.file_io import PathManager
from fairseq.trainer import Trainer
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from fairseq_skd.compat import weights_only
from fairseq_skd.encoders.checkpoint import dictionary_of, load_checkpoint
from fairseq_skd.encoders.fine_tuned import CHECKPOINT, holds_fine_tuned, read_fine_tuned
from fairseq_skd.encoders.huggingface import CONFIG
from fairseq_skd.encoders.pretrained import section
from fairseq_skd.encoders.weight_files import check_finite
from fairseq_skd.errors import UserError, shown
from fairseq_skd.files.dictionaries import first_difference
from fairseq_skd.models.config import select
from fairseq_skd.models.heads import SymbolMap, head_tensors
from fairseq_skd.models.skd_ctc import SkdCtc
from fairseq_skd.models.state_dict import depth_of
from fairseq_skd.models.trained import read_trained
from fairseq_skd.training.trainer_state import check_optimizer_fits, for_trainer


def replace_reader() -> None:
    """Make ``checkpoint_utils.load_checkpoint_to_cpu`` read our checkpoints with our reader."""
    read = checkpoint_utils.load_checkpoint_to_cpu
    if not hasattr(read, "__wrapped__"):
        checkpoint_utils.load_checkpoint_to_cpu = functools.wraps(read)(functools.partial(_read, read))


def _read(
    read: Any, path: str, arg_overrides: dict[str, Any] | None = None, load_on_all_ranks: bool = False
) -> dict[str, Any]:
    """Read a checkpoint as fairseq does.

    Raises:
        UserError: the file cannot be read, see
            :func:`~fairseq_skd.encoders.checkpoint.load_checkpoint`; or it holds a damaged model of
            ours, see :func:`~fairseq_skd.models.trained.read_trained`.
    """
    file = Path(PathManager.get_local_path(path))
    state = load_checkpoint(file)
    name = getattr(state["args"], "arch", None) if state["cfg"] is None else state["cfg"]["model"].get("_name")
    if name != "skd_ctc":
        del state  # before fairseq reads a second copy
        with weights_only():
            return read(path, arg_overrides, load_on_all_ranks)
    trained = read_trained(state, file)
    config = OmegaConf.create(trained.config)
    if arg_overrides is not None:
        checkpoint_utils.overwrite_args_by_name(config, arg_overrides)
    task_state = {} if trained.dictionary is None else {"target_dictionary": trained.dictionary}
    return {**for_trainer(file, state, resumed=True), "args": None, "cfg": config, "task_state": task_state}


logger = logging.getLogger(__name__)

_START = (
    "to start a new training from its weights, give it to checkpoint.finetune_from_model in another checkpoint.save_dir"
)
# How fairseq's and torch's errors begin if the state of the optimizer does not fit this run.
_OTHER_OPTIMIZER = ("Optimizer does not match", "loaded state dict")
_OTHER_BATCHES = "Cannot resume training due to dataloader mismatch"
_RESETS = ("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader")


def complete_start(cfg: DictConfig) -> None:
    """Take the encoder of ``checkpoint.finetune_from_model`` if ``model.w2v_path`` is not set."""
    start = select(cfg, "checkpoint.finetune_from_model")
    if start and OmegaConf.select(cfg, "model.w2v_path") in (None, ""):
        cfg.model.w2v_path = start


def check_start(cfg: DictConfig) -> None:
    """Check that the checkpoint to start from exists; fairseq silently starts without it.

    Args:
        cfg: the whole configuration.

    Raises:
        UserError: a file does not exist, or two keys exclude each other.
    """
    checkpoint, latest = cfg.checkpoint, "checkpoint_last.pt"
    if checkpoint.finetune_from_model and checkpoint.restore_file != latest:
        raise UserError(
            f"checkpoint.finetune_from_model={checkpoint.finetune_from_model} and checkpoint.restore_file="
            f"{checkpoint.restore_file} exclude each other: keep the first to start a new training from its weights, "
            f"the second to resume a training"
        )
    resets = [key for key in _RESETS if checkpoint.finetune_from_model and checkpoint[key]]
    if resets:
        raise UserError(
            f"checkpoint.{resets[0]}=true does nothing with checkpoint.finetune_from_model, which takes only weights: "
            f"set it to false"
        )
    keys = ["restore_file"]
    last = Path(checkpoint.save_dir) / latest
    if checkpoint.restore_file == latest and os.path.lexists(last) and not last.is_file():  # fairseq would start again
        what = "is a folder" if last.is_dir() else "is a broken link"
        raise UserError(
            f"{last} {what}, so no training can resume from it: remove it, or put the checkpoint in its place"
        )
    if checkpoint.restore_file == latest:
        keys = [] if last.is_file() else ["continue_once", "finetune_from_model"]
    for key in keys:
        path = OmegaConf.select(checkpoint, key)
        if key == "finetune_from_model" and path and holds_fine_tuned(Path(path)):
            continue
        if path and not PathManager.isfile(path):
            where = "" if Path(path).is_absolute() else f" in {Path.cwd()}, where Hydra runs this"
            missing = f"does not exist{where}: give the absolute path of a checkpoint"
            folder = "is a folder: give a checkpoint in it, such as checkpoint_best.pt"
            raise UserError(f"checkpoint.{key}={path} {folder if Path(path).is_dir() else missing}")


def check_save_dir(cfg: DictConfig) -> None:
    """Check that checkpoints can be saved; fairseq checks it too, but ends in a traceback.

    Raises:
        UserError: the folder cannot be created or written.
    """
    folder = Path(cfg.checkpoint.save_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"checkpoint.save_dir={folder} cannot be created ({error.strerror}): give another folder"
        ) from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"checkpoint.save_dir={folder} is not writable: give another folder")


def read_checkpoints_of_trainings() -> None:
    """Make fairseq's trainer read checkpoints of ``skd_ctc`` through :func:`read_state`."""
    load = Trainer.load_checkpoint
    if hasattr(load, "__wrapped__"):
        return

    @functools.wraps(load)
    def load_own(self: Trainer, filename: str, reset_optimizer: bool = False, *args: Any, **kwargs: Any) -> Any:
        model = self.get_model()
        if not isinstance(model, SkdCtc):
            return load(self, filename, reset_optimizer, *args, **kwargs)
        read = checkpoint_utils.load_checkpoint_to_cpu
        start = Path(filename)
        if folder := start.is_dir():  # fairseq's trainer silently starts without a folder's weights
            filename = str(start / (CHECKPOINT if (start / CHECKPOINT).is_file() else CONFIG))
        # Replaced only during this call: fairseq calls it on the workers that read the file, before
        # the broadcast and outside the trainer's `except Exception`, which hides the reason.
        checkpoint_utils.load_checkpoint_to_cpu = lambda path, **_: read_state(
            start if folder else Path(PathManager.get_local_path(path)),
            model,
            self.task.target_dictionary,
            criterion=None if reset_optimizer else type(self.get_criterion()).__name__,
        )
        try:
            loaded = load(self, filename, reset_optimizer, *args, **kwargs)
            if loaded is not None and not reset_optimizer:
                check_optimizer_fits(filename, self.optimizer.optimizer)
            return loaded
        except (AssertionError, ValueError) as error:
            if not str(error).startswith(_OTHER_OPTIMIZER):
                raise
            difference = shown(str(error).rpartition(". ")[2], 200)
            raise UserError(
                f"checkpoint {filename} has the state of another optimizer ({difference}): set the optimizer section, "
                f"model.freeze_regex and common.fp16 as they were, or set checkpoint.reset_optimizer=true to start a "
                f"new training from its weights"
            ) from error
        finally:
            checkpoint_utils.load_checkpoint_to_cpu = read

    Trainer.load_checkpoint = load_own
    load_all = checkpoint_utils.load_checkpoint

    @functools.wraps(load_all)
    def load_with_batches(cfg: Any, trainer: Trainer, **kwargs: Any) -> Any:
        try:
            return load_all(cfg, trainer, **kwargs)
        except RuntimeError as error:
            if not str(error).startswith(_OTHER_BATCHES) or not isinstance(trainer.get_model(), SkdCtc):
                raise
            raise UserError(
                f"checkpoint {cfg.restore_file} of checkpoint.save_dir={cfg.save_dir} was saved in an epoch with more "
                f"batches than dataset.train_subset has now: train on the same data as before, or set "
                f"checkpoint.reset_dataloader=true to begin an epoch of the new data"
            ) from error

    checkpoint_utils.load_checkpoint = load_with_batches


def read_state(path: Path, model: SkdCtc, dictionary: Dictionary, criterion: str | None) -> dict[str, Any]:
    """Read a checkpoint for fairseq's trainer and fit its weights to the model.

    Args:
        path: the file; for a start, also a folder with a fine-tuned model.
        model: the model, freshly initialized.
        dictionary: the task's dictionary.
        criterion: class name of the criterion, for a resume; None for a start, which takes only
            weights.

    Returns:
        ``model``, ``extra_state``, ``optimizer_history`` and ``last_optimizer_state``, as the
        trainer needs them. The configuration is left out: the trainer does not use it, and it
        cannot be trusted.

    Raises:
        UserError: the file cannot be read, holds NaN or Inf, or has no CTC head; it has no
            dictionary and its heads have another size; its tensors do not fit the model; or, in a
            resume, dictionary, criterion or students differ, or the optimizer's state is missing.
    """
    state = read_fine_tuned(path)[0] if path.is_dir() else load_checkpoint(path)
    check_finite(state["model"], f"checkpoint {path}")
    heads = head_tensors(state["model"])
    if not heads:
        raise UserError(
            f"checkpoint {path} has no CTC head, so it is not fine-tuned: set model.w2v_path to a pretrained encoder, "
            f"and checkpoint.finetune_from_model or checkpoint.restore_file to a fine-tuned checkpoint"
        )
    saved = _saved_symbols(path, state, next(iter(heads.values())).size(0), dictionary)
    if criterion is None:
        change = SymbolMap.between(saved, dictionary.symbols)
        logger.info("%s: symbols of the CTC heads: %s", path, change)
        _check_case(path, change, dictionary)
        _warn_of_scaling(path, state, model)
        fresh = model.state_dict()
        for name, head in heads.items():
            # A student's head may become the head of a pruned model: see adapt.
            like = fresh.get(name, fresh[f"w2v_encoder.proj.{name.rpartition('.')[2]}"])
            if head.shape[1:] == like.shape[1:]:  # another width is refused below
                state["model"][name] = change.apply(head, like)
    else:
        _check_resumable(path, state, saved, dictionary, criterion)
        _check_exits(path, state["model"], heads, model)
    model.upgrade_state_dict(state["model"])
    _check_shapes(path, state["model"], model)
    return for_trainer(path, state, resumed=criterion is not None)


def _saved_symbols(path: Path, state: Mapping[str, Any], size: int, dictionary: Dictionary) -> list[str]:
    """List the symbols that the checkpoint was trained with, one per row of its heads."""
    saved = dictionary_of(state, f"checkpoint {path}")
    if saved is None:
        if size != len(dictionary):
            raise UserError(
                f"checkpoint {path} holds no dictionary and its CTC head has {size} symbols, but the dictionary of "
                f"task.data has {len(dictionary)}: give the dictionary that the checkpoint was trained with"
            )
        logger.warning(
            "%s holds no dictionary: its %d symbols are assumed to be the symbols of task.data in the same order",
            path,
            size,
        )
        return list(dictionary.symbols)
    if len(saved) != size:
        raise UserError(f"checkpoint {path} is damaged: its dictionary does not fit its CTC head of {size} symbols")
    return saved.symbols


def _check_case(path: Path, change: SymbolMap, dictionary: Dictionary) -> None:
    """Check that most letters do not differ from the checkpoint's only in case."""
    dropped = set(change.dropped)
    other = [symbol for symbol in change.new if symbol.swapcase() in dropped]
    own = dictionary.symbols[dictionary.nspecial :]
    same = [symbol for symbol in own if symbol.swapcase() != symbol and symbol not in change.new]
    if len(other) > len(same):
        case, wanted = ("lower", "upper") if other[0].isupper() else ("upper", "lower")
        raise UserError(
            f"checkpoint {path} has its letters in {case} case and the dictionary of task.data in {wanted} case, so "
            f"{len(other)} rows of the CTC head would start untrained: write the data again, with fairseq_skd.manifest "
            f"--normalize {case}"
        )


def _warn_of_scaling(path: Path, state: Mapping[str, Any], model: SkdCtc) -> None:
    """Warn if the checkpoint was trained on audio of another scale."""
    before = section(state["cfg"], "model").get("normalize")
    settled = model.cfg.get("w2v_normalize") is not None  # by the user: what the checkpoint says is wrong
    if isinstance(before, bool) and before != bool(model.cfg.normalize) and not settled:
        logger.warning(
            "%s was fine-tuned with normalize=%s, but this training has task.normalize=%s", path, before, not before
        )


def _check_resumable(
    path: Path, state: Mapping[str, Any], saved: Sequence[str], dictionary: Dictionary, criterion: str
) -> None:
    if difference := first_difference(saved, dictionary.symbols):
        differs = difference.describe("the checkpoint", "the dictionary of task.data")
        raise UserError(
            f"checkpoint {path} was trained with another dictionary ({differs}): resume with its own dictionary, or, "
            f"{_START}"
        )
    history = state.get("optimizer_history")
    last = history[-1] if isinstance(history, list) and history else None
    before = last.get("criterion_name") if isinstance(last, dict) else None
    if not isinstance(before, str) or "extra_state" not in state:
        raise UserError(f"checkpoint {path} holds only weights and cannot be resumed: {_START}")
    if before != criterion:
        raise UserError(
            f"checkpoint {path} was trained with {shown(before)}, but this run has {criterion}: use that criterion, "
            f"or, {_START}"
        )
    if state.get("last_optimizer_state") is None:  # fairseq would count from update 0 again, silently
        raise UserError(
            f"checkpoint {path} was saved without the optimizer's state (checkpoint.no_save_optimizer_state) and "
            f"cannot be resumed: {_START}"
        )


def _check_exits(path: Path, weights: Iterable[str], heads: Iterable[str], model: SkdCtc) -> None:
    """Check that a resumed run keeps depth and students; the optimizer's state fits only them."""
    saved = {int(name.split(".")[1]) for name in heads if name.startswith("student_heads.")}
    if saved != set(model.student_layers):
        raise UserError(
            f"checkpoint {path} was trained with model.student_layers={sorted(saved)}, but this run has "
            f"{sorted(model.student_layers)}: {_START}"
        )
    if model.cfg.keep_layers and (layers := depth_of(weights)) > model.depth:
        raise UserError(
            f"checkpoint {path} was trained with {layers} layers, but model.keep_layers={model.cfg.keep_layers}: "
            f"{_START}"
        )


def _check_shapes(path: Path, weights: Mapping[str, Tensor], model: nn.Module) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) if isinstance(tensor, Tensor) else None for name, tensor in weights.items()}
    differing = [name for name in {**own, **found} if own.get(name) != found.get(name)]
    if differing:
        name = differing[0]
        shapes = (str(shapes.get(name, "missing")) for shapes in (found, own))
        raise UserError(
            f"checkpoint {path} does not fit the model: {len(differing)} tensors differ, the first is {name} "
            f"({next(shapes)} in the checkpoint, {next(shapes)} in the model): set model.w2v_path to the encoder that "
            f"it was trained with"
        )
