"""A checkpoint is untrusted: nothing in it is run."""

import builtins
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from fairseq_skd import compat
from tests.encoders.checkpoints import MODEL, TASK, Harmful, refusal, save

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
def test_code_in_a_checkpoint_is_named_and_not_run(
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


def test_no_setting_makes_our_loader_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "made"
    path = save(tmp_path / "c.pt", cfg={"model": MODEL}, x=Harmful(os.mkdir, str(target)))
    for name in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        for other in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
            monkeypatch.delenv(other, raising=False)
        monkeypatch.setenv(name, "1")
        assert "posix.mkdir" in refusal(path)
    assert not target.exists()


def test_nothing_on_the_allow_list_runs_what_it_is_given() -> None:
    """The allow-list's own names: containers, nodes, scalars, and no function but numpy's scalar."""
    functions = [entry for entry in compat.checkpoint_globals() if not isinstance(entry, type) and callable(entry)]
    assert {f"{entry.__module__}.{entry.__name__}" for entry in functions} - {"typing.Any"} == {
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
    }
    packages = {entry.__module__.split(".")[0] for entry in compat.checkpoint_globals()}
    assert packages == {"fairseq", "argparse", "collections", "typing", "builtins", "omegaconf", "numpy"}
