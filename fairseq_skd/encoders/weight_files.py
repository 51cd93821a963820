"""Files of weights as untrusted input: what is in them is read and never run."""

import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from fairseq_skd.encoders.unpickling import MOST_BYTES, NO_PICKLE, RefusedError, Storage, Unpickler
from fairseq_skd.errors import UserError, shown
from fairseq_skd.files.progress import progress, working

_ARCHIVE = b"PK\x03\x04"
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MOST_MEMBERS = 200_000


def read_torch_file(file: Path) -> Any:
    """What ``torch.save`` wrote, on the CPU, whatever the environment says about loading.

    Memory stays within the size of the file, and an archive's members are compared with their checksums.

    Raises:
        RefusedError: it holds what is not read; see :mod:`fairseq_skd.encoders.unpickling`.
        Exception: it is damaged or another kind of file; of a dozen kinds.
    """
    size = file.stat().st_size
    with file.open("rb") as stream, progress(f"reading {shown(file.name, 200)}", "B", size, unit_scale=True) as step:
        if stream.read(len(_ARCHIVE)) != _ARCHIVE:
            stream.seek(0)
            return _read_chain(stream, size, step)
        stream.seek(0)
        with zipfile.ZipFile(stream) as archive:
            return _read_archive(archive, size, step)


def _read_archive(archive: zipfile.ZipFile, size: int, step: Callable[[int], None]) -> Any:
    members = {member.filename: member for member in archive.infolist()}
    if len(members) < len(archive.infolist()) or len(members) > _MOST_MEMBERS:
        raise RefusedError("it is an archive with two members of one name, or too many")
    for name, member in members.items():
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise RefusedError(f"its member {shown(name, 200)} is compressed, which torch.save never does")
    if sum(member.file_size for member in members.values()) > size:
        raise RefusedError("its members overlap: together they are larger than the file")
    if not any(member.CRC for member in members.values()):  # torch.serialization.set_crc32_options(False)
        for member in members.values():
            del member.CRC
    folder = next(iter(members), "").partition("/")[0]

    def read(name: str, buffer: Any) -> None:
        with archive.open(members[f"{folder}/{name}"]) as content:
            if content.readinto(buffer) != len(buffer):  # type: ignore[attr-defined]
                raise EOFError(name)
        step(len(buffer))

    if f"{folder}/data.pkl" not in members:
        raise RefusedError("it is an archive without data.pkl, so not a PyTorch file")
    length = members[f"{folder}/data.pkl"].file_size
    if length > MOST_BYTES:
        raise RefusedError(f"its data.pkl has {length:,} bytes, more than {MOST_BYTES:,}")
    if f"{folder}/byteorder" in members:
        order = bytearray(members[f"{folder}/byteorder"].file_size)
        read("byteorder", order)
        _check_order(order == sys.byteorder.encode())
    pickled = bytearray(length)
    read("data.pkl", pickled)
    kept: dict[str, tuple[torch.dtype, Storage]] = {}

    def storage(dtype: torch.dtype, key: str, numbers: int) -> Storage:
        if key not in kept:
            member = members.get(f"{folder}/data/{key}")
            if member is None or member.file_size != numbers * dtype.itemsize:
                raise RefusedError(f"its storage {shown(key, 200)} has not the size that its pickle says")
            kept[key] = _allocate(dtype, numbers, lambda buffer: read(f"data/{key}", buffer))
        return _known(kept, dtype, key, numbers)

    return Unpickler(BytesIO(pickled), storage).load()


def _read_chain(stream: BinaryIO, size: int, step: Callable[[int], None]) -> Any:
    """Pickles (a magic number, the protocol, the machine, the object, the keys of the storages), then the storages."""
    head = BytesIO(stream.read(MOST_BYTES))
    if Unpickler(head).load() != _MAGIC or Unpickler(head).load() != _PROTOCOL:
        raise RefusedError(NO_PICKLE)
    machine = Unpickler(head).load()
    _check_order(isinstance(machine, dict) and machine.get("little_endian") == (sys.byteorder == "little"))
    kept: dict[str, tuple[torch.dtype, Storage]] = {}
    declared = 0

    def storage(dtype: torch.dtype, key: str, numbers: int) -> Storage:
        nonlocal declared
        if key not in kept:
            declared += numbers * dtype.itemsize
            if declared > size:
                raise RefusedError("its storages together are larger than the file")
            kept[key] = _allocate(dtype, numbers, lambda _: None)
        return _known(kept, dtype, key, numbers)

    result = Unpickler(head, storage).load()
    keys = Unpickler(head).load()
    if not isinstance(keys, list) or any(type(key) is not str for key in keys) or sorted(keys) != sorted(kept):
        raise RefusedError("its list of storages does not belong to its pickle")
    stream.seek(head.tell())
    for key in keys:
        numbers = kept[key][1].numbers
        if int.from_bytes(stream.read(8), "little") != numbers.numel():
            raise RefusedError(f"its storage {shown(key, 200)} has not the size that its pickle says")
        buffer = _bytes(numbers)
        if stream.readinto(buffer) != len(buffer):  # type: ignore[attr-defined]
            raise EOFError(key)
        step(len(buffer))
    return result


def _allocate(dtype: torch.dtype, numbers: int, fill: Callable[[Any], None]) -> tuple[torch.dtype, Storage]:
    storage = Storage(torch.empty(numbers, dtype=dtype))
    if numbers:
        fill(_bytes(storage.numbers))
    return dtype, storage


def _bytes(numbers: torch.Tensor) -> Any:
    return numbers.view(torch.uint8).numpy()


def _known(kept: dict[str, tuple[torch.dtype, Storage]], dtype: torch.dtype, key: str, numbers: int) -> Storage:
    held, storage = kept[key]
    if held != dtype or storage.numbers.numel() != numbers:
        raise RefusedError(f"its storage {shown(key, 200)} is said to be of two kinds")
    return storage


def _check_order(same: bool) -> None:
    if not same:
        raise RefusedError("it was written on a machine of another byte order")


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
        with working(f"reading {shown(file.name, 200)}"):
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
