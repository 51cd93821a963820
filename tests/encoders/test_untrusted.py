"""A checkpoint is untrusted: nothing in it is executed."""

import builtins
import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fairseq_skd import compat
from tests.encoders.checkpoints import MODEL, TASK, Harmful, refusal, save


class State(Harmful):
    """Pickles as a call whose result gets a state."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], state: Any) -> None:
        self.call = function, arguments, state  # type: ignore[assignment]


CALLS = [
    (os.system, "touch {target}", "posix.system"),
    (os.mkdir, "{target}", "posix.mkdir"),
    (exec, "open('{target}', 'w')", "exec"),
    (getattr(builtins, "eval"), "open('{target}', 'w')", "eval"),  # noqa: B009
    (subprocess.getoutput, "touch {target}", "getoutput"),
    (torch.load, "{target}", "torch.serialization.load"),
    (Path, "{target}", "pathlib."),
]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["model", "cfg", "task_state"])
@pytest.mark.parametrize(("function", "argument", "named"), CALLS)
def test_code_in_a_checkpoint_is_named_and_not_executed(
    tmp_path: Path, function: Any, argument: str, named: str, place: str, legacy: bool
) -> None:
    target = tmp_path / "touched"
    state: dict[str, Any] = {"cfg": {"model": MODEL, "task": TASK}, "model": {}}
    state[place] = {"x": Harmful(function, argument.replace("{target}", str(target)))}
    path = save(tmp_path / "c.pt", legacy, **state)
    sentence = refusal(path)
    assert not target.exists()
    assert sentence.startswith(f"model.w2v_path: checkpoint {path} is refused: it holds ")
    assert sentence.endswith("which is not on the allow-list of checkpoint contents and could run code")
    found = sentence.split("it holds ")[1].split(",")[0]
    assert named in found
    assert " " not in found


def test_no_environment_variable_makes_the_loader_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "made"
    path = save(tmp_path / "c.pt", cfg={"model": MODEL}, x=Harmful(os.mkdir, str(target)))
    for name in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        for other in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
            monkeypatch.delenv(other, raising=False)
        monkeypatch.setenv(name, "1")
        assert "posix.mkdir" in refusal(path)
    assert not target.exists()


OBJECTS = Harmful(np.dtype, "O")
HOLDS_OBJECTS = State(np.dtype, ("S8", False, True), (3, "|", (OBJECTS, (1,)), None, None, 8, 1, 0))
TYPES = {
    "fields": Harmful(np.dtype, [("a", HOLDS_OBJECTS)]),
    "a subarray": HOLDS_OBJECTS,
    "objects": OBJECTS,
    "names": State(np.dtype, ("S8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("i8"), 0)}, 8, 1, 0)),
    "another size": State(np.dtype, ("S8", False, True), (3, "|", None, None, None, 800, 1, 0)),
    "metadata": State(np.dtype, ("f8", False, True), (4, "<", None, None, None, -1, -1, 0, {"a": 1})),
}


@pytest.mark.faults
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_only_numpy_types_of_plain_scalars_load(tmp_path: Path, kind: str, legacy: bool) -> None:
    """X1: numpy once took eight bytes of the file as a pointer, and followed it."""
    scalar = Harmful(np.float64(1).__reduce__()[0], TYPES[kind], b"A" * 8)
    path = save(tmp_path / "c.pt", legacy, cfg={"model": {**MODEL, "encoder_layers": scalar}})
    assert "numpy scalar that is not a plain number, boolean or text" in refusal(path)
    with pytest.raises(pickle.UnpicklingError, match="not a plain number"):  # fairseq's own reading
        torch.load(path, weights_only=True)


def test_nothing_on_the_allow_list_runs_its_arguments() -> None:
    """The allow-list has containers, nodes and scalars; its only function is numpy's scalar."""
    functions = [entry for entry in compat.checkpoint_globals() if not isinstance(entry, type) and callable(entry)]
    assert {f"{entry.__module__}.{entry.__name__}" for entry in functions} - {"typing.Any"} == {
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
    }
    packages = {entry.__module__.split(".")[0] for entry in compat.checkpoint_globals()}
    assert packages == {"fairseq", "argparse", "collections", "typing", "builtins", "omegaconf", "numpy"}
