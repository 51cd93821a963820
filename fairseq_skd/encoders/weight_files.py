"""Files of weights as untrusted input: what is in them is read and never run."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairseq_skd.encoders.torch_files import read_torch_file
from fairseq_skd.encoders.unpickling import NO_PICKLE, RefusedError
from fairseq_skd.errors import UserError

_POINTER = b"version https://git-lfs"  # what a clone without git-lfs has in the place of a large file


def load_weights_only(file: Path) -> Any:
    """What ``torch.save`` wrote, on the CPU: see :mod:`fairseq_skd.encoders.unpickling` for what it can hold.

    Raises:
        UserError: missing, truncated, not a PyTorch file, or holding objects that are not on the allow-list.
    """
    _check_file(file)
    try:
        return read_torch_file(file)
    except (RefusedError, pickle.UnpicklingError) as error:
        reason = str(error) if isinstance(error, RefusedError) else NO_PICKLE
        raise UserError(f"checkpoint {file} is refused: {reason}") from error
    except Exception as error:  # what Python raises over a damaged file is of a dozen kinds
        raise UserError(f"checkpoint {file} cannot be read, it is truncated or not a PyTorch file") from error


def load_safetensors(file: Path) -> dict[str, Tensor]:
    """Name -> tensor, on the CPU.

    Raises:
        UserError: missing, truncated, not a safetensors file; or the library is not installed.
    """
    _check_file(file)
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f"{file} needs the library safetensors: pip install safetensors") from error
    try:
        return load_file(file)
    except Exception as error:  # SafetensorError, and what torch raises over shapes and types
        raise UserError(f"checkpoint {file} cannot be read, it is truncated or not a safetensors file") from error


def check_finite(weights: Mapping[str, Any], source: str) -> None:
    """Check that every number of a checkpoint's weights is finite; 400 MB take 0.1 s on one core.

    Args:
        weights: name -> tensor; what is no floating-point tensor is left out.
        source: where they were read from, for the message.

    Raises:
        UserError: naming the source, the first tensor with NaN or Inf and the number of such tensors.
    """
    damaged = [name for name, tensor in weights.items() if torch.is_tensor(tensor) and not _is_finite(tensor)]
    if damaged:
        raise UserError(
            f"{source}: {damaged[0]} holds NaN or Inf, the first of {len(damaged)} such tensors of {len(weights)}: use "
            f"a checkpoint from before the training diverged"
        )


def _is_finite(tensor: Tensor) -> bool:
    """Least and greatest number decide: several times faster than a mask of all numbers."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    return all(bool(torch.isfinite(bound)) for bound in torch.aminmax(tensor))


def _check_file(file: Path) -> None:
    if not file.is_file():
        raise UserError(f"checkpoint {file} {'is a folder' if file.is_dir() else 'does not exist'}")
    try:
        with file.open("rb") as stream:
            head = stream.read(len(_POINTER))
    except OSError as error:
        raise UserError(f"checkpoint {file} cannot be read: {error.strerror}") from error
    if head == _POINTER:
        raise UserError(f"checkpoint {file} is a pointer of git-lfs and not the weights: run git lfs pull there")
