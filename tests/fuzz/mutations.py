"""Seeded mutations of checkpoints: of their content, their pickles and their bytes."""

import argparse
import builtins
import copy
import io
import os
import random
import subprocess
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary

CANARY = "SKD_FUZZ_CANARY"  # an environment variable, and a file that code in a checkpoint would create


class Call:
    """Pickles as a call of a function, with a state if given."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], *state: Any) -> None:
        self.call = (function, arguments, *state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def _values(rng: random.Random, json_only: bool) -> list[Any]:
    """List values of every type, size and form, with JSON values more often."""
    scalar = np.float64(1).__reduce__()[0]
    objects = Call(np.dtype, ("O",))
    subarray = Call(np.dtype, ("S8", False, True), (3, "|", (objects, (1,)), None, None, 8, 1, 0))
    cycle: list[Any] = []
    cycle.append(cycle)
    laughs: list[Any] = ["ha"]
    for _ in range(40):
        laughs = [laughs, laughs]
    plain = [
        *(None, True, False, 0, 1, -1, -3, 2, 3, 7, 2**31, 2**63 - 1, 10**9, 10**20, 3 * 10**5),
        *(0.0, 0.5, -0.5, 1.5, 1e300, float("nan"), float("inf")),
        *("", "x", "abc", "evil", "True", "12", "???", "\n", "a\nb", "../../etc/passwd", "é\ud800", "x" * 30_000),
        *(
            f"${{oc.env:{CANARY}}}",
            f"x${{oc.env:{CANARY},y}}z",
            "${task.data}",
            "${model.encoder_layers}",
            "${a.b}",
            "${",
        ),
        *(
            "${model}",
            "\\${oc.env:HOME}",
            f"__import__('os').system('touch {CANARY}')",
            "(512,10,5)",
            "[(1,1,1)] * 99999",
        ),
        *("[(99999999999999999999, 10, 5)]", "[(8, 10, 5)] + [(8, 3, 2)] * 4", "conformer", "rel_pos", "trf_adp"),
        *([], {}, [1], ["a"], [[]], [None], {"a": 1}, {"_name": "x"}, list(range(3000)), [0.5, "x", {}], [-1], [10**9]),
    ]
    wild = [
        *(b"bytes", (1, 2), {1, 2}, {1: 2}, {None: 1}, argparse.Namespace(a=1), OrderedDict(a=1), Dictionary()),
        *(cycle, laughs, "y" * 3_000_000, list(range(10**5)), 10**30, np.float64(2.5), np.int32(3), np.str_("a")),
        *(
            torch.zeros(0),
            torch.ones(()),
            torch.ones(3),
            torch.full((2, 2), float("nan")),
            torch.ones(2, dtype=torch.int64),
        ),
        *(torch.ones(1).expand(10**9), torch.ones(4, dtype=torch.bool), torch.ones(2, 3)[:, 1]),
        Call(os.system, (f"touch {CANARY}",)),
        Call(subprocess.getoutput, (f"touch {CANARY}",)),
        Call(getattr(builtins, "eval"), (f"open('{CANARY}', 'w')",)),  # noqa: B009
        Call(os.getenv, (CANARY,)),
        Call(scalar, (subarray, b"A" * 8)),
        Call(scalar, (Call(np.dtype, ([("a", subarray)],)), b"A" * 8)),
        Call(torch._utils._rebuild_tensor_v2, (torch.ones(3).storage(), 0, (10**6,), (1,), False, OrderedDict())),
        Call(Dictionary, ()),
    ]
    return plain if json_only or rng.random() < 0.6 else plain + wild * 2


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the paths to all values below ``value``."""
    if isinstance(value, argparse.Namespace | Dictionary):
        value = vars(value)
    items: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    )
    found = []
    for key, part in items:
        found.append((*path, key))
        found += _places(part, (*path, key))
    return found


def _container(value: Any, path: tuple[Any, ...]) -> Any:
    """Return the container of a path's last key."""
    for key in path[:-1]:
        value = vars(value)[key] if isinstance(value, argparse.Namespace | Dictionary) else value[key]
    return vars(value) if isinstance(value, argparse.Namespace | Dictionary) else value


def mutate(state: Any, rng: random.Random, json_only: bool = False) -> tuple[Any, str]:
    """Change one to three places of a structure; return the changed copy and a description."""
    state = copy.deepcopy(state)
    done = []
    by_section: dict[Any, list[tuple[Any, ...]]] = {}
    for place in _places(state):
        by_section.setdefault(place[:2] if len(place) > 1 and place[0] == "cfg" else place[:1], []).append(place)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        wanted = [key for key in by_section if key[0] in ("cfg", "args")] if rng.random() < 0.5 else []
        path = rng.choice(by_section[rng.choice(wanted or list(by_section))])
        try:
            holder, key = _container(state, path), path[-1]
            holder[key] = holder[key]
        except (LookupError, TypeError):  # a tuple, or changed before
            continue
        done.append(_change(holder, key, rng, json_only) + " " + ".".join(map(str, path))[:80])
    return state, ", ".join(done)


def _change(holder: Any, key: Any, rng: random.Random, json_only: bool) -> str:
    values = _values(rng, json_only)
    old = holder[key]
    kinds = ["value", "value", "value", "delete", "extra"]
    if type(old) is int:
        kinds += ["size"] * 3
    if isinstance(old, torch.Tensor):
        kinds = ["tensor"] * 4 + ["value", "delete", "rename"]
    kind = rng.choice(kinds)
    if kind == "delete":
        del holder[key]
    elif kind in ("extra", "rename") and isinstance(holder, dict):
        new = rng.choice(
            ["x", "encoder_layers", "w2v_args", "conditioners.a", "student_heads.1.proj.weight", 5, None, ""]
        )
        if json_only:
            new = str(new)
        holder[new] = holder.pop(key) if kind == "rename" else rng.choice(values)
    elif kind == "size":
        holder[key] = rng.choice([old + 1, old - 1, old * 2, old * 1000, -old, 0, 10**9, 10**12, old // 2])
    elif kind == "tensor":
        holder[key] = _other_tensor(old, rng)
    else:
        kind = "value"
        holder[key] = rng.choice(values)
    return kind


def _other_tensor(tensor: torch.Tensor, rng: random.Random) -> Any:
    return rng.choice(
        [
            lambda: tensor[:-1] if tensor.dim() else tensor.reshape(1),
            lambda: tensor.unsqueeze(0),
            lambda: tensor.flatten(),
            lambda: tensor.double(),
            lambda: tensor.half(),
            lambda: tensor.to(torch.int64),
            lambda: torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor,
            lambda: tensor.new_zeros(0),
            lambda: tensor.new_zeros(()),
            lambda: tensor.t() if tensor.dim() == 2 else tensor,
            lambda: tensor.new_ones(1).expand(tensor.shape),
            lambda: torch.nn.Parameter(tensor.float()),
        ]
    )()


def rewrite_pickle(content: bytes, rng: random.Random) -> bytes:
    """Change bytes of ``data.pkl`` in an archive and correct its checksum; or compress it."""
    source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    how = rng.choice(["bytes"] * 8 + ["compress", "twice"])
    with zipfile.ZipFile(target, "w") as archive:
        for member in source.infolist():
            data = bytearray(source.read(member))
            if member.filename.endswith("/data.pkl") and how == "bytes":
                for _ in range(rng.choice((1, 1, 2, 4))):
                    data[rng.randrange(len(data))] = rng.randrange(256)
            kind = zipfile.ZIP_DEFLATED if how == "compress" else zipfile.ZIP_STORED
            archive.writestr(member.filename, bytes(data), kind)
        if how == "twice":
            archive.writestr("archive/data.pkl", b"\x80\x02N.")
    return target.getvalue()


def damage(content: bytes, rng: random.Random) -> bytes:
    """Truncate a file, or change bytes anywhere in it."""
    if rng.random() < 0.3:
        return content[: rng.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(rng.choice((1, 3, 20))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def write_torch(state: Any, path: Path, rng: random.Random) -> None:
    """Save as a zip archive or in the legacy format."""
    torch.save(state, path, _use_new_zipfile_serialization=rng.random() < 0.8)
