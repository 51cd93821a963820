"""Read a pickle as data, without executing code: the allow-list of checkpoint contents.

Python's own unpickler imports and calls whatever a pickle names. Here a name must be in the tables
below, and steps that act on an object (calls, states, items) accept only objects from the tables.
"""

import argparse
import pickle
from collections import OrderedDict
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, ClassVar

import torch
from fairseq.data import Dictionary
from fairseq.logging import meters
from torch import Tensor

from fairseq_skd.compat import NotScalarError, ScalarType, numpy_scalar
from fairseq_skd.errors import shown

# Far above any speech checkpoint: 1 billion parameters with optimiser state make 3,000 tensors and
# 1 MB of pickle.
MOST_BYTES = 8 << 20
MOST_TENSORS = 50_000
_MOST_COPIED = 4 * MOST_BYTES
_LONGEST_INTEGER = 16  # bytes
_LONGEST_KEY = 64  # bits


class RefusedError(Exception):
    """A file holds something that is not allowed. Its text continues "the file is refused: "."""


class Node:
    """The content of an omegaconf node, read without omegaconf's code.

    Attributes:
        content: a dict or list of nodes, a plain value, an interpolation as text, or None.
    """

    content: Any = None


class Ignored:
    """Stands for ignored content: types, devices, and the types and flags of omegaconf nodes."""


class Storage:
    """The numbers (n,) behind tensors; tensors are views of them."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers


class _Call:
    """A function that a pickle may call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """Make a view of a storage, and check its bounds.

    torch would extend the storage to fit the view, and so expose whatever memory holds there.
    """
    sizes, strides = _counts(size), _counts(stride)
    (start,) = _counts((offset,))
    if type(storage) is not Storage or len(sizes) != len(strides) or any(rest[2:]):
        raise RefusedError("it holds a tensor of an unknown form")
    numbers, held = 1, storage.numbers.numel()
    for length in sizes:
        numbers *= length
    last = start + sum((length - 1) * step for length, step in zip(sizes, strides, strict=True))
    if numbers > held or (numbers and last >= held):
        raise RefusedError(
            f"it holds a tensor of size {sizes}, stride {strides} and offset {start}, which exceeds or repeats its "
            f"storage of {held} numbers"
        )
    if numbers == 0:
        return storage.numbers.new_empty(sizes)
    return storage.numbers.as_strided(sizes, strides, start)


def _counts(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > 8 or any(type(n) is not int or n < 0 for n in values):
        raise RefusedError("it holds a tensor of an unknown form")
    return values


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise RefusedError("it holds a parameter of an unknown form")
    return data


def _latin(text: Any, encoding: Any) -> bytes:
    """Read bytes as Python 3 writes them in pickles for Python 2."""
    if type(text) is not str or encoding != "latin1":
        raise RefusedError("it holds bytes of an unknown form")
    return text.encode("latin1")


def _listed(items: Any = ()) -> Any:
    if not isinstance(items, list | tuple):
        raise RefusedError("it holds a collection of an unknown form")
    return items


def _check_keys(keys: Sequence[Any]) -> Sequence[Any]:
    """Check keys of a dict or members of a set, because Python hashes them.

    Hashing nested tuples can take forever or overflow the stack. Long integers can share one hash.
    """
    for key in keys:
        if not (key is None or isinstance(key, str | bytes | int | float)) or (
            isinstance(key, int) and key.bit_length() > _LONGEST_KEY
        ):
            raise RefusedError("it holds a key that is neither text nor a number of usual size")
    return keys


def _pairs(items: Any = ()) -> Any:
    """Check the items of an ordered dict, as Python 2 writes them."""
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in _listed(items)):
        raise RefusedError("it holds a collection of an unknown form")
    _check_keys([key for key, _ in items])
    return items


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda *items: OrderedDict(_pairs(*items)),
    "collections.defaultdict": lambda *_: {},
    "_codecs.encode": _latin,
    "builtins.set": lambda *items: set(_check_keys(_listed(*items))),
    "torch.device": lambda *_: Ignored(),
    "torch.Size": lambda *sizes: tuple(_listed(*sizes)),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "numpy.dtype": ScalarType,
    **{f"{module}.scalar": numpy_scalar(module) for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
}
# Types of objects that a pickle creates empty, then gives a state.
_OBJECTS: dict[str, type] = {
    "argparse.Namespace": argparse.Namespace,
    "fairseq.data.dictionary.Dictionary": Dictionary,
    **{
        f"fairseq.{module}.{kind.__name__}": kind
        for module in ("meters", "logging.meters")
        for kind in (meters.AverageMeter, meters.TimeMeter, meters.StopwatchMeter)
    },
    "omegaconf.base.Metadata": Ignored,
    "omegaconf.base.ContainerMetadata": Ignored,
    **dict.fromkeys(("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"), Node),
    **{
        f"omegaconf.nodes.{kind}Node": Node
        for kind in ("Any", "String", "Integer", "Float", "Boolean", "Bytes", "Path")
    },
}
STORAGES: dict[str, torch.dtype] = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_PYTHON_TYPES = ("dict", "list", "tuple", "int", "long", "float", "str", "unicode", "bool", "bytes", "object")
# Names that are values: they cannot be called.
_NAMES: dict[str, Any] = {
    **{f"torch.{name}Storage": dtype for name, dtype in STORAGES.items()},
    **{str(dtype): dtype for dtype in STORAGES.values()},
    **{f"builtins.{name}": Ignored() for name in _PYTHON_TYPES},
    "typing.Any": Ignored(),
}
_MADE = (argparse.Namespace, Dictionary, meters.AverageMeter, meters.TimeMeter, meters.StopwatchMeter, Ignored, Node)

_NAMED_STEPS = (
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE "
    "BINUNICODE8 BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST "
    "APPEND APPENDS EMPTY_DICT SETITEM SETITEMS EMPTY_SET ADDITEMS GLOBAL STACK_GLOBAL NEWOBJ REDUCE BUILD BINPERSID "
    "BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE"
)
_STEPS = [getattr(pickle, step)[0] for step in _NAMED_STEPS.split()]
_PYTHON: Any = pickle._Unpickler  # type: ignore[attr-defined]  # Any: it has no type hints


class Unpickler(_PYTHON):
    """The pure-Python unpickler of the standard library, limited to the steps and names above.

    It reads one pickle.

    Args:
        stream: at most :data:`MOST_BYTES` long.
        storage: function (type, key, number of elements) -> the storage of that key.
    """

    dispatch: ClassVar = {code: _PYTHON.dispatch[code] for code in _STEPS}

    def __init__(self, stream: BytesIO, storage: Callable[[torch.dtype, str, int], Storage] | None = None) -> None:
        super().__init__(stream, encoding="utf-8", errors="strict")
        self._storage = storage
        self._copied = self._tensors = 0

    def load(self) -> Any:
        """Read the object.

        Raises:
            RefusedError: a name is not in the tables, or a value has a form that no checkpoint has.
            Exception: the stream is not a pickle, or is damaged; a dozen exception types.
        """
        try:
            return super().load()
        except KeyError as error:
            raise RefusedError(NO_PICKLE) from error
        except NotScalarError as error:
            raise RefusedError(f"it holds {error}") from error

    def find_class(self, module: str, name: str) -> Any:
        """Look up a name in the tables."""
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        full = f"{module}.{name}"
        if full in _CALLS:
            return _Call(_CALLS[full])
        if full in _OBJECTS:
            return _OBJECTS[full]
        if full in _NAMES:
            return _NAMES[full]
        # The message can show a platform's module name: posix for os.
        raise RefusedError(
            f"it holds {shown(full, 200)}, which is not on the allow-list of checkpoint contents and could run code"
        )

    def persistent_load(self, pid: Any) -> Storage:
        """Return the storage that the pickle describes."""
        if self._storage is None or not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise RefusedError(NO_PICKLE)
        _, dtype, key, _, numbers, *view = pid
        if not isinstance(dtype, torch.dtype) or type(key) is not str or any(part is not None for part in view):
            raise RefusedError("it holds a storage of an unknown form")
        (count,) = _counts((numbers,))
        return self._storage(dtype, key, count)

    def _spend(self, values: Any) -> None:
        """Limit copying: a small pickle can pass one long value to a thousand calls."""
        sized = values if isinstance(values, tuple | list) else [values]
        self._copied += sum(len(value) for value in sized if hasattr(value, "__len__") and type(value) is not Tensor)
        if self._copied > _MOST_COPIED:
            raise RefusedError("it copies its contents over and over")

    def load_reduce(self) -> None:
        """Call a function of the tables."""
        arguments = self.stack.pop()
        call = self.stack[-1]
        if type(call) is not _Call or type(arguments) is not tuple:
            raise RefusedError(NO_PICKLE)
        self._spend(arguments)
        made = call.function(*arguments)
        if isinstance(made, Tensor):
            self._tensors += 1
            if self._tensors > MOST_TENSORS:
                raise RefusedError(f"it holds more than {MOST_TENSORS:,} tensors")
        self.stack[-1] = made

    def load_newobj(self) -> None:
        """Make an empty object of a type in the tables."""
        arguments = self.stack.pop()
        kind = self.stack.pop()
        if not isinstance(kind, type) or arguments != ():
            raise RefusedError(NO_PICKLE)
        self.append(object.__new__(kind))

    def load_build(self) -> None:
        """Give an object its state: values by name."""
        state = self.stack.pop()
        made = self.stack[-1]
        if type(made) is ScalarType:
            made.__setstate__(state)
        elif type(made) is OrderedDict:
            pass  # state_dict() stores the versions of modules there
        elif type(made) not in _MADE or not isinstance(state, dict) or not all(type(key) is str for key in state):
            raise RefusedError(NO_PICKLE)
        elif type(made) is Node:
            made.content = state.get("_content", state.get("_val"))
        elif type(made) is Dictionary:
            self._spend([state.get("symbols"), state.get("count")])
            made.__dict__.update(_dictionary(state))
        elif type(made) is not Ignored:
            self._spend(state)
            made.__dict__.update(state)

    def load_long1(self) -> None:
        """Read an integer; a limit on its size keeps printing and comparing cheap."""
        length = self.read(1)[0]
        if length > _LONGEST_INTEGER:
            raise RefusedError(f"it holds an integer of {length} bytes")
        self.append(int.from_bytes(self.read(length), "little", signed=True))

    def load_setitem(self) -> None:
        """``dict[key] = value``."""
        value, key = self.stack.pop(), self.stack.pop()
        _check_keys([key])
        self._dict()[key] = value

    def load_setitems(self) -> None:
        """``dict[key] = value``, for all pairs since the mark."""
        items = self.pop_mark()
        _check_keys(items[::2])
        self._dict().update(zip(items[::2], items[1::2], strict=True))

    def load_append(self) -> None:
        """``list.append(value)``."""
        value = self.stack.pop()
        self._list().append(value)

    def load_appends(self) -> None:
        """``list.extend(values)``."""
        values = self.pop_mark()
        self._list().extend(values)

    def load_additems(self) -> None:
        """``set.update(values)``."""
        values = self.pop_mark()
        if type(self.stack[-1]) is not set:
            raise RefusedError(NO_PICKLE)
        _check_keys(values)
        self.stack[-1].update(values)

    def _dict(self) -> dict[Any, Any]:
        if type(self.stack[-1]) not in (dict, OrderedDict):
            raise RefusedError(NO_PICKLE)
        return self.stack[-1]

    def _list(self) -> list[Any]:
        if type(self.stack[-1]) is not list:
            raise RefusedError(NO_PICKLE)
        return self.stack[-1]

    dispatch.update(
        {
            pickle.REDUCE[0]: load_reduce,
            pickle.NEWOBJ[0]: load_newobj,
            pickle.BUILD[0]: load_build,
            pickle.LONG1[0]: load_long1,
            pickle.SETITEM[0]: load_setitem,
            pickle.SETITEMS[0]: load_setitems,
            pickle.APPEND[0]: load_append,
            pickle.APPENDS[0]: load_appends,
            pickle.ADDITEMS[0]: load_additems,
        }
    )


NO_PICKLE = "it is not a PyTorch file, or its pickle holds something other than weights and configuration"


def _dictionary(state: dict[str, Any]) -> dict[str, Any]:
    """Check types and lengths in the state of a fairseq dictionary, and copy it."""
    symbols, counts = state.get("symbols"), state.get("count")
    words: dict[str, Any] = {
        key: state[key] for key in ("bos_word", "unk_word", "pad_word", "eos_word") if key in state
    }
    numbers: dict[str, Any] = {
        key: state[key] for key in ("bos_index", "unk_index", "pad_index", "eos_index") if key in state
    }
    special = state.get("nspecial", 0)
    if (
        not isinstance(symbols, list)
        or not isinstance(counts, list)
        or len(symbols) != len(counts)
        or not all(type(symbol) is str for symbol in symbols)
        or not all(type(count) is int for count in counts)
        or not all(type(word) is str for word in words.values())
        or not all(type(number) is int and 0 <= number < len(symbols) for number in numbers.values())
        or type(special) is not int
        or not 0 <= special <= len(symbols)
    ):
        raise RefusedError("its dictionary is damaged: symbols, counts and special symbols do not match")
    indices = {symbol: index for index, symbol in enumerate(symbols)}
    return {
        **words,
        **numbers,
        "symbols": list(symbols),
        "count": list(counts),
        "indices": indices,
        "nspecial": special,
    }
