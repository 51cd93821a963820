"""Every difference between versions of fairseq, torch and hydra that the package has to know, and nothing else.

Line by line these are the cures of traps that bite before any method is reached: checkpoints that torch >= 2.6 refuses,
checkpoints that torch < 2.6 executes, hydra's function that moved.
"""

import argparse
import collections
import contextlib
import enum
import functools
import inspect
import os
import pickle
import re
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import omegaconf
from omegaconf import DictConfig

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_FORBID = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"

_SCALAR = re.compile(r"b1|[iu][1248]|f[248]|[SU][1-9]\d{0,3}")


def checkpoint_globals() -> list[Any]:
    """What a real fairseq checkpoint holds besides tensors: classes whose construction runs no foreign code."""
    from fairseq.data import Dictionary  # here: composing a YAML needs neither fairseq nor torch
    from fairseq.distributed import utils as distributed_utils
    from fairseq.logging import meters

    nodes = [
        node
        for module in (omegaconf.nodes, omegaconf.base, omegaconf.dictconfig, omegaconf.listconfig)
        for node in vars(module).values()
        if inspect.isclass(node) and node.__module__.startswith("omegaconf") and not issubclass(node, Exception)
    ]
    meter_classes = [
        meters.AverageMeter,
        meters.TimeMeter,
        meters.StopwatchMeter,
        meters.MetersDict,
    ]
    return [
        Dictionary,
        argparse.Namespace,
        distributed_utils._TensorPlaceholder,  # stands for a tensor in what worker 0 broadcasts of a checkpoint
        collections.defaultdict,
        typing.Any,
        dict,
        list,
        int,
        *nodes,
        *meter_classes,
        *map(numpy_scalar, ("numpy.core.multiarray", "numpy._core.multiarray")),
        ScalarType,
    ]


class NotScalarError(pickle.UnpicklingError):
    """A pickle describes another numpy type than that of a plain scalar."""

    def __str__(self) -> str:
        return "a numpy scalar that is no plain number, truth value or text"


class ScalarType:
    """Stands for ``numpy.dtype`` where a file is read: the type of a number, a truth value or a short text.

    numpy believes what a pickle says of a type. One that claims to hold objects makes it follow bytes of the file as a
    pointer.

    Args:
        code: such as ``f8``.
        _: ``align`` and ``copy``, which mean nothing for a scalar.

    Raises:
        NotScalarError: any other type.
    """

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _SCALAR.fullmatch(code):
            raise NotScalarError
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        """Take the byte order and nothing else."""
        order = state[1] if isinstance(state, tuple) and len(state) == 8 else None
        own = self.dtype.newbyteorder(order) if order in ("<", "|", "=", ">") else None
        if own is None or own.__reduce__()[2][2:7] != state[2:7]:  # no subarray, names or fields; size, alignment
            raise NotScalarError
        self.dtype = own


ScalarType.__module__, ScalarType.__qualname__, ScalarType.__name__ = "numpy", "dtype", "dtype"


@functools.cache
def numpy_scalar(module: str) -> Callable[[Any, Any], Any]:
    """numpy's constructor of scalars under a module's name: numpy 2 moved it, and checkpoints hold either name."""

    def scalar(kind: Any, content: Any) -> Any:
        if type(kind) is not ScalarType or type(content) is not bytes or len(content) != kind.dtype.itemsize:
            raise NotScalarError
        return np.frombuffer(content, kind.dtype)[0]

    scalar.__module__, scalar.__qualname__ = module, "scalar"
    return scalar


def prefer_weights_only() -> None:
    """Make ``torch.load`` read weights, not programs, also where fairseq passes no ``weights_only`` or passes False."""
    import torch

    torch.serialization.add_safe_globals(checkpoint_globals())
    if os.environ.get(_FORBID, "0").lower() not in ("1", "y", "yes", "true"):  # torch refuses to obey both
        os.environ.setdefault(_FORCE, "1")


@contextlib.contextmanager
def weights_only() -> Iterator[None]:
    """Make ``torch.load`` read weights and no programs, even where the environment asks for the opposite."""
    before = {name: os.environ.pop(name, None) for name in (_FORCE, _FORBID)}
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        del os.environ[_FORCE]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def compose_yaml(folder: Path, name: str, overrides: Sequence[str]) -> DictConfig:
    """Hydra's ``compose``, which moved and took up an argument."""
    if hasattr(hydra, "compose"):
        from hydra import compose, initialize_config_dir
    else:  # hydra 1.0
        from hydra.experimental import compose, initialize_config_dir
    versioned = "version_base" in inspect.signature(initialize_config_dir.__init__).parameters  # from hydra 1.2 on
    with initialize_config_dir(config_dir=str(folder), **({"version_base": "1.1"} if versioned else {})):
        return compose(config_name=name, overrides=list(overrides))


def to_container(config: Any) -> Any:
    """An omegaconf node as plain Python, interpolations resolved and enums as their names; others unchanged."""
    if omegaconf.OmegaConf.is_config(config):
        return omegaconf.OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    return config.value if isinstance(config, enum.Enum) else config
