"""Check the parts of a checkpoint that fairseq's trainer uses besides weights; drop the rest."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fairseq import checkpoint_utils
from torch import Tensor
from torch.optim import Optimizer

from fairseq_skd.encoders.weight_files import check_finite
from fairseq_skd.errors import UserError
from fairseq_skd.typed_settings import FINITE, Range

_COUNT = Range(0, 10**12)
_COUNTS = (
    "extra_state.epoch",
    "extra_state.batch_offset",
    "extra_state.train_iterator.epoch",
    "extra_state.train_iterator.iterations_in_epoch",
    "extra_state.train_iterator.version",
    "optimizer_history.num_updates",
)
_NUMBERS = ("extra_state.previous_training_time", "optimizer_history.lr_scheduler_state.best")
_BEST = _NUMBERS[1]  # reduce_lr_on_plateau saves infinity until the first validation
_METERS = {
    "AverageMeter": {"val", "sum", "count"},
    "SumMeter": {"sum"},
    "TimeMeter": {"init", "n"},
    "StopwatchMeter": {"sum", "n"},
    "ConcatTensorMeter": {"tensor"},
}
_SETTINGS = {"lr": 1, "weight_decay": 1, "momentum": 1, "rho": 1, "betas": 2}  # numbers per setting
# Tensors shaped like the parameter, as fairseq's and torch's optimizers name them.
_MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "acc_delta", "exp_inf", "sum")
# The keys that trainer and checkpoint_utils read; all others are dropped.
_HISTORY = ("criterion_name", "optimizer_name", "lr_scheduler_state", "num_updates", "best_loss", "optimizer")
_EXTRA = (
    "epoch",
    "batch_offset",
    "train_iterator",
    "previous_training_time",
    "metrics",
    "best",
    "val_loss",
    "ema",
    "ema_fp32_params",
)


def for_trainer(path: Path, state: Mapping[str, Any], resumed: bool) -> dict[str, Any]:
    """Take the parts that the trainer uses, in the form of current fairseq checkpoints.

    Args:
        path: path of the checkpoint, for messages.
        state: the checkpoint.
        resumed: whether its training is resumed; a start counts updates from 0.

    Raises:
        UserError: a part has a wrong type or an impossible number; the message names the key.
    """
    history = state.get("optimizer_history")
    history = [{"num_updates": 0, "lr_scheduler_state": {}, "optimizer_name": ""}] if history is None else history
    extra = state.get("extra_state")
    extra = {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}} if extra is None else extra
    good = isinstance(history, list) and len(history) > 0 and all(isinstance(part, dict) for part in history)
    _check(path, "optimizer_history", history, good, "a list of dicts")
    _check(path, "extra_state", extra, isinstance(extra, dict), "a dict")
    kept = {
        "model": state["model"],
        "extra_state": {key: extra[key] for key in _EXTRA if key in extra},
        "optimizer_history": [{key: part[key] for key in _HISTORY if key in part} for part in history],
    }
    _check_parts(path, kept["extra_state"], kept["optimizer_history"][-1])
    for key in ("criterion", "last_optimizer_state") if resumed else ():
        if state.get(key) is not None:
            _check(path, key, state[key], isinstance(state[key], dict), "a dict")
            kept[key] = state[key]
    if "best_loss" not in kept["optimizer_history"][-1]:  # with best_loss, fairseq adds the schedule's state
        kept["optimizer_history"][-1].setdefault("lr_scheduler_state", {})
    kept = checkpoint_utils._upgrade_state_dict(kept)
    _check_optimizer(path, kept.get("last_optimizer_state"))
    iterator = kept["extra_state"]["train_iterator"]
    iterator["epoch"] = max(iterator["epoch"], 1)
    if not resumed:  # the trainer counts from 0, but gives this number to the model at first
        kept["optimizer_history"][-1]["num_updates"] = 0
    return kept


def check_optimizer_fits(path: str | Path, optimizer: Optimizer) -> None:
    """Check that the moments an optimizer loaded fit its parameters.

    Args:
        path: path of the checkpoint, for the message.
        optimizer: after ``load_state_dict``.

    Raises:
        UserError: moments have another shape, are missing, or are not finite.
    """
    names: dict[int, set[str]] = {}  # by number of dimensions: Adafactor keeps other moments for matrices
    for parameter, state in optimizer.state.items():
        moments = {name: value for name, value in state.items() if name in _MOMENTS and value is not None}
        fits = names.setdefault(parameter.dim(), moments.keys() & set(_MOMENTS)) == moments.keys() and all(
            isinstance(value, Tensor) and value.shape == parameter.shape for value in moments.values()
        )
        if not fits:
            raise UserError(
                f"checkpoint {path} is damaged: its last_optimizer_state does not fit the parameters; use another "
                f"checkpoint"
            )
        check_finite(moments, f"last_optimizer_state of checkpoint {path}")


def _check(path: Path, key: str, value: Any, good: bool, wanted: str) -> None:
    if not good:
        shown = f"={value!r}"[:100] if value is None or isinstance(value, str | int | float | bool) else ""
        raise UserError(f"checkpoint {path} is damaged: its {key}{shown} has to be {wanted}; use another checkpoint")


def _check_parts(path: Path, extra: dict[str, Any], last: dict[str, Any]) -> None:
    """Check types and ranges of the numbers that fairseq adds or compares."""
    for key, part in (
        ("extra_state.train_iterator", extra.get("train_iterator", {})),
        ("optimizer_history.lr_scheduler_state", last.get("lr_scheduler_state", {})),
    ):
        _check(path, key, part, isinstance(part, dict), "a dict")
    for key in (*_COUNTS, *_NUMBERS):
        section, *names, name = key.split(".")
        holder: Any = {"extra_state": extra, "optimizer_history": last}[section]
        for inner in names:
            holder = holder.get(inner, {})
        value = holder.get(name)
        if value is not None and key in _COUNTS:
            _check(path, key, value, type(value) is int and _COUNT.holds(value), f"an integer, {_COUNT}")
        elif value is not None:  # a tensor if several workers added up their times
            good = _is_number(value) and (FINITE.holds(float(value)) or (key == _BEST and math.isinf(value)))
            _check(path, key, value, good, str(FINITE))
            holder[name] = float(value)
    for name in ("criterion_name", "optimizer_name"):
        _check(path, f"optimizer_history.{name}", last.get(name), isinstance(last.get(name, ""), str), "a text")
    iterator = extra.get("train_iterator", {})
    _check(path, "extra_state.train_iterator.epoch", None, "epoch" in iterator or not iterator, "an integer")
    _check_meters(path, extra.get("metrics", {}))
    for key in ("best", "val_loss"):
        if extra.get(key) is not None:
            _check(path, f"extra_state.{key}", extra[key], _is_number(extra[key]), "a number")
            extra[key] = float(extra[key])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) or (isinstance(value, Tensor) and value.numel() == 1)


def _check_meters(path: Path, metrics: Any) -> None:
    """Check the saved meters: fairseq creates any class of its module that they name."""
    good = isinstance(metrics, dict)
    for entries in metrics.values() if good else ():
        good = good and isinstance(entries, list) and all(_is_meter(entry) for entry in entries)
        good = good and len({entry[1] for entry in entries}) == len(entries)
    _check(path, "extra_state.metrics", metrics, good, "meters of a training")


def _is_meter(entry: Any) -> bool:
    if not isinstance(entry, tuple) or len(entry) != 4:
        return False
    priority, key, kind, state = entry
    if type(priority) is not int or type(key) is not str or not isinstance(state, dict):
        return False
    numbers = all(value is None or _is_number(value) for name, value in state.items() if name != "tensor")
    return type(kind) is str and numbers and _METERS.get(kind, {"?"}) <= state.keys()


def _check_optimizer(path: Path, optimizer: Any) -> None:
    if optimizer is None:
        return
    key = "last_optimizer_state"
    _check(path, key, optimizer, isinstance(optimizer, dict), "a dict")
    groups, states = optimizer.get("param_groups"), optimizer.get("state")
    good = isinstance(groups, list) and all(
        isinstance(group, dict)
        and isinstance(group.get("params"), list)
        and all(map(_is_index, group["params"]))
        and all(_is_setting(key, value) for key, value in group.items() if key != "params")
        for group in groups
    )
    _check(path, f"{key}.param_groups", groups, good, "groups of parameters")
    good = isinstance(states, dict) and all(
        _is_index(index) and isinstance(state, dict) and all(_is_of_optimizer(*item) for item in state.items())
        for index, state in states.items()
    )
    _check(path, f"{key}.state", states, good, "tensors and numbers for each parameter")


def _is_index(value: Any) -> bool:
    return type(value) is int


def _is_setting(key: Any, value: Any) -> bool:
    """Accept one value, such as ``lr``, or a short list, such as ``betas``."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    if key in _SETTINGS:
        return len(values) == _SETTINGS[key] and all(map(_is_number, values))
    return len(values) <= 8 and all(part is None or isinstance(part, Tensor | int | float | str) for part in values)


def _is_of_optimizer(name: Any, value: Any) -> bool:
    return type(name) is str and (value is None or isinstance(value, Tensor | int | float))
