"""Read weight files as untrusted input: their content is never executed."""

import io
import pickle
import sys
import zipfile
from collections.abc import Collection, Mapping
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


def read_torch_file(file: Path, unread: Collection[str] = ()) -> Any:
    """Read a file of ``torch.save`` to the CPU, whatever torch's environment variables say.

    Memory stays within the size of the file. An archive's checksums are verified.

    Args:
        file: the file.
        unread: keys of the dict in the file that are left out. The numbers of their tensors are
            never read, so they cost neither time nor memory.

    Raises:
        RefusedError: the file holds something that :mod:`fairseq_skd.encoders.unpickling` refuses.
        Exception: the file is damaged or of another kind; Python raises a dozen exception types.
    """
    size = file.stat().st_size
    title = f"reading {shown(file.name, 200)}"
    with file.open("rb") as stream:
        if stream.read(len(_ARCHIVE)) != _ARCHIVE:
            stream.seek(0)
            return _read_legacy(stream, size, unread, title)
        stream.seek(0)
        with zipfile.ZipFile(stream) as archive:
            return _read_archive(archive, size, unread, title)


_Kept = dict[str, tuple[torch.dtype, Storage]]


def _read_archive(archive: zipfile.ZipFile, size: int, unread: Collection[str], title: str) -> Any:
    members = {member.filename: member for member in archive.infolist()}
    if len(members) < len(archive.infolist()) or len(members) > _MOST_MEMBERS:
        raise RefusedError("it is an archive with two members of the same name, or with too many members")
    for name, member in members.items():
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise RefusedError(f"its member {shown(name, 200)} is compressed, but torch.save never compresses")
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
    kept: _Kept = {}

    def storage(dtype: torch.dtype, key: str, numbers: int) -> Storage:
        if key not in kept:
            member = members.get(f"{folder}/data/{key}")
            if member is None or member.file_size != numbers * dtype.itemsize:
                raise RefusedError(f"its storage {shown(key, 200)} does not have the size that its pickle declares")
            kept[key] = dtype, _allocate(dtype, numbers)
        return _known(kept, dtype, key, numbers)

    result = Unpickler(io.BytesIO(pickled), storage).load()
    needed = _leave_out(result, unread, kept)
    with progress(title, "B", sum(map(len, needed.values())), unit_scale=True) as step:
        for key, buffer in needed.items():
            read(f"data/{key}", buffer)
            step(len(buffer))
    return result


def _read_legacy(stream: BinaryIO, size: int, unread: Collection[str], title: str) -> Any:
    """Read the format before torch 1.6.

    It has five pickles (a magic number, the protocol, the machine, the object, the keys of the
    storages), then the storages.
    """
    head = io.BytesIO(stream.read(MOST_BYTES))
    if Unpickler(head).load() != _MAGIC or Unpickler(head).load() != _PROTOCOL:
        raise RefusedError(NO_PICKLE)
    machine = Unpickler(head).load()
    _check_order(isinstance(machine, dict) and machine.get("little_endian") == (sys.byteorder == "little"))
    kept: _Kept = {}
    declared = 0

    def storage(dtype: torch.dtype, key: str, numbers: int) -> Storage:
        nonlocal declared
        if key not in kept:
            declared += numbers * dtype.itemsize
            if declared > size:
                raise RefusedError("its storages together are larger than the file")
            kept[key] = dtype, _allocate(dtype, numbers)
        return _known(kept, dtype, key, numbers)

    result = Unpickler(head, storage).load()
    keys = Unpickler(head).load()
    if not isinstance(keys, list) or any(type(key) is not str for key in keys) or sorted(keys) != sorted(kept):
        raise RefusedError("its list of storages does not match its pickle")
    sizes = {key: storage.numbers.nbytes for key, (_, storage) in kept.items()}
    counts = {key: storage.numbers.numel() for key, (_, storage) in kept.items()}
    needed = _leave_out(result, unread, kept)
    stream.seek(head.tell())
    with progress(title, "B", sum(map(len, needed.values())), unit_scale=True) as step:
        for key in keys:
            if int.from_bytes(stream.read(8), "little") != counts[key]:
                raise RefusedError(f"its storage {shown(key, 200)} does not have the size that its pickle declares")
            if key not in needed:
                stream.seek(sizes[key], io.SEEK_CUR)
            elif stream.readinto(needed[key]) != sizes[key]:  # type: ignore[attr-defined]
                raise EOFError(key)
            else:
                step(sizes[key])
    return result


def _allocate(dtype: torch.dtype, numbers: int) -> Storage:
    """Reserve memory. The system provides it page by page, when it is written."""
    return Storage(torch.empty(numbers, dtype=dtype))


def _leave_out(result: Any, unread: Collection[str], kept: _Kept) -> dict[str, Any]:
    """Remove keys from what was read, in place, and return the buffers that are still to be filled.

    Only storages of the removed parts, which no other tensor shares, stay empty.
    """
    removed = [result.pop(key) for key in unread if key in result] if isinstance(result, dict) else []
    empty = _addresses(removed) - (_addresses(result) if removed else set())
    return {
        key: storage.numbers.view(torch.uint8).numpy()
        for key, (_, storage) in kept.items()
        if storage.numbers.numel() and storage.numbers.data_ptr() not in empty
    }


def _addresses(value: Any) -> set[int]:
    """Find the storages of all tensors in a value."""
    found: set[int] = set()
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Tensor):
            found.add(part.untyped_storage().data_ptr())
        elif id(part) not in seen:
            seen.add(id(part))
            if isinstance(part, dict):
                waiting.extend(part.values())
            elif isinstance(part, list | tuple):
                waiting.extend(part)
            elif not isinstance(part, type):
                waiting.extend(getattr(part, "__dict__", {}).values())
    return found


def _known(kept: _Kept, dtype: torch.dtype, key: str, numbers: int) -> Storage:
    held, storage = kept[key]
    if held != dtype or storage.numbers.numel() != numbers:
        raise RefusedError(f"its storage {shown(key, 200)} is declared twice, with different types or sizes")
    return storage


def _check_order(same: bool) -> None:
    if not same:
        raise RefusedError("it was written on a machine with another byte order")


_POINTER = b"version https://git-lfs"  # stands for a large file in a clone without git-lfs


def load_weights_only(file: Path, unread: Collection[str] = ()) -> Any:
    """Read a file of ``torch.save`` to the CPU without executing code.

    :mod:`fairseq_skd.encoders.unpickling` has the allow-list of its contents.

    Args:
        file: the file.
        unread: keys that are left out, see :func:`read_torch_file`.

    Raises:
        UserError: the file is missing, truncated, not a PyTorch file, or holds objects that are not
            on the allow-list.
    """
    _check_file(file)
    try:
        return read_torch_file(file, unread)
    except (RefusedError, pickle.UnpicklingError) as error:
        reason = str(error) if isinstance(error, RefusedError) else NO_PICKLE
        raise UserError(f"checkpoint {file} is refused: {reason}") from error
    except Exception as error:  # a damaged file can raise a dozen exception types
        raise UserError(f"checkpoint {file} cannot be read, it is truncated or not a PyTorch file") from error


def load_safetensors(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file to the CPU: name -> tensor.

    Raises:
        UserError: the file is missing, truncated or not a safetensors file, or the library
            safetensors is not installed.
    """
    _check_file(file)
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f"{file} needs the library safetensors: pip install safetensors") from error
    try:
        with working(f"reading {shown(file.name, 200)}"):
            return load_file(file)
    except Exception as error:  # SafetensorError, and torch's errors about shapes and types
        raise UserError(f"checkpoint {file} cannot be read, it is truncated or not a safetensors file") from error


def check_finite(weights: Mapping[str, Any], source: str) -> None:
    """Check that a checkpoint's weights are finite; 400 MB take 0.1 s on one core.

    Args:
        weights: name -> tensor; values that are not floating-point tensors are ignored.
        source: origin of the weights, for the message.

    Raises:
        UserError: a tensor holds NaN or Inf; the message names the source and the first of them.
    """
    damaged = [name for name, tensor in weights.items() if torch.is_tensor(tensor) and not _is_finite(tensor)]
    if damaged:
        raise UserError(
            f"{source}: {damaged[0]} holds NaN or Inf, the first of {len(damaged)} such tensors of {len(weights)}: use "
            f"a checkpoint from before the training diverged"
        )


def _is_finite(tensor: Tensor) -> bool:
    """Check the minimum and the maximum: several times faster than checking every number."""
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
        raise UserError(f"checkpoint {file} is a git-lfs pointer and not the weights: run git lfs pull in its folder")
