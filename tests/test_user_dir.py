"""The user dir in fresh processes: by name, by path, twice, as a copy; what fairseq loads."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fairseq_skd
from tests.builders import write_pretrained

pytestmark = pytest.mark.slow  # each test is a process that imports fairseq

PACKAGE = Path(fairseq_skd.__file__).resolve().parent
FORCE, FORBID = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"

# Imports the user dir as argv[1] says, each user dir of argv[2] and each checkpoint of argv[3]
# through fairseq, and reports the results as JSON.
PROBE = """
import argparse, json, os, sys
from fairseq import checkpoint_utils, criterions, models, utils

def attempt(function, *arguments):
    try:
        return str(function(*arguments) and "ok")
    except Exception as error:
        return f"{type(error).__name__}: {error}"

if sys.argv[1] == "by name":
    import fairseq_skd
report = {"user dirs": {}, "loads": {}}
for name, user_dir in json.loads(sys.argv[2]).items():
    report["user dirs"][name] = attempt(utils.import_user_module, argparse.Namespace(user_dir=user_dir))
import fairseq_skd
for name, path in json.loads(sys.argv[3]).items():
    report["loads"][name] = attempt(checkpoint_utils.load_checkpoint_to_cpu, path)
report["package"] = fairseq_skd.__file__
report["registered"] = ["skd_ctc" in models.MODEL_REGISTRY, "skd_ctc" in criterions.CRITERION_REGISTRY]
report["force"] = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
print(json.dumps(report))
"""


class MakesFolder:
    """Pickles as a call of ``os.mkdir``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def start(arguments: list[str], folder: Path, importable: bool) -> subprocess.Popen[str]:
    """Start Python in another folder, with the checkout importable by name or not."""
    environment = {name: value for name, value in os.environ.items() if name not in (FORCE, FORBID, "PYTHONPATH")}
    if importable:
        environment["PYTHONPATH"] = str(PACKAGE.parent)
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with copies of the user dir, links to it and checkpoints."""
    folder = tmp_path_factory.mktemp("user_dir")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / "elsewhere" / "fairseq_skd", ignore=ignored)
    shutil.copytree(PACKAGE, folder / "renamed_skd", ignore=ignored)
    (folder / "link").symlink_to(PACKAGE)
    (folder / "links").mkdir()
    (folder / "links" / "fairseq_skd").symlink_to(PACKAGE)
    (folder / "copy_link").symlink_to(folder / "elsewhere" / "fairseq_skd")
    write_pretrained(folder / "real.pt", encoder_layers=1)
    write_pretrained(folder / "real_old.pt", "wav2vec2", style="args", encoder_layers=1)
    torch.save({"model": {}, "extra_state": MakesFolder(folder / "made")}, folder / "harmful.pt")
    return folder


@pytest.fixture(scope="module")
def reports(places: Path) -> dict[str, Any]:
    """Three processes at once, because starting fairseq takes seconds."""
    dirs = {
        "none": None,
        "itself": str(PACKAGE),
        "slash": f"{PACKAGE}/",
        "relative": os.path.relpath(PACKAGE, places),
        "link": str(places / "link"),
        "link of its name": str(places / "links" / "fairseq_skd"),
        "copy": str(places / "elsewhere" / "fairseq_skd"),
        "relative copy": "elsewhere/fairseq_skd",
        "link to copy": str(places / "copy_link"),
        "renamed copy": str(places / "renamed_skd"),
        "itself again": str(PACKAGE),
    }
    loads = {name: str(places / f"{name}.pt") for name in ("real", "real_old", "harmful")}
    by_path = {"link of its name": dirs.pop("link of its name"), **dirs}
    by_name = {**dirs, "link of its name": by_path["link of its name"]}
    started = {
        "by name": start(["-c", PROBE, "by name", json.dumps(by_name), json.dumps(loads)], places, True),
        "by path": start(["-c", PROBE, "by path", json.dumps(by_path), json.dumps(loads)], places, False),
        "printed": start(["-m", "fairseq_skd"], places, True),
    }
    finished = {name: finish(process) for name, process in started.items()}
    return {name: output if name == "printed" else json.loads(output) for name, output in finished.items()}


ORDERS = pytest.mark.parametrize("order", ["by name", "by path"])


@ORDERS
def test_importing_registers_model_and_criterion(reports: dict[str, Any], order: str) -> None:
    assert reports[order]["registered"] == [True, True]
    assert Path(reports[order]["package"]).resolve() == PACKAGE / "__init__.py"


@ORDERS
@pytest.mark.parametrize("again", ["none", "itself", "slash", "relative", "link", "link of its name", "itself again"])
def test_the_same_folder_twice_is_harmless(reports: dict[str, Any], order: str, again: str) -> None:
    assert reports[order]["user dirs"][again] == "None"


@ORDERS
@pytest.mark.parametrize("copy", ["copy", "relative copy", "link to copy"])
def test_two_copies_are_both_named(reports: dict[str, Any], places: Path, order: str, copy: str) -> None:
    second = (places / "elsewhere" / "fairseq_skd").resolve()
    assert reports[order]["user dirs"][copy] == (
        f"UserError: common.user_dir={second} is a second copy of fairseq_skd, {PACKAGE} is already imported: "
        f"use only one (python -m fairseq_skd prints its path)"
    )


@ORDERS
def test_a_renamed_copy_is_refused(reports: dict[str, Any], places: Path, order: str) -> None:
    assert reports[order]["user dirs"]["renamed copy"] == (
        f"ImportError: the user dir {places / 'renamed_skd'} must keep its name, fairseq_skd: rename the folder back"
    )


@ORDERS
def test_fairseq_itself_loads_weights_only(reports: dict[str, Any], places: Path, order: str) -> None:
    assert reports[order]["force"] == "1"
    assert reports[order]["loads"]["real"] == "ok"
    assert reports[order]["loads"]["real_old"] == "ok"
    assert reports[order]["loads"]["harmful"].startswith("UserError: checkpoint ")
    assert "posix.mkdir" in reports[order]["loads"]["harmful"]
    assert not (places / "made").exists()


# A module to import before fairseq, and a line to run afterwards.
FIRST = {
    "fairseq_skd": "utils.import_user_module(argparse.Namespace(user_dir=sys.argv[1]))",
    "fairseq_skd.models": "",
    "fairseq_skd.criterions.ctc": "",
    "fairseq_skd.recognizer": "",
    "fairseq_skd.training.starting": "",
}
AFTER = """
import argparse, json, sys
before = sorted({"fairseq", "hydra", "numpy", "torch"} & set(sys.modules))
import fairseq_cli.train
from fairseq import criterions, data, models, trainer, utils
report = {"before": before, "copy": None}
try:
    utils.import_user_module(argparse.Namespace(user_dir=sys.argv[2]))
except ValueError as error:
    report["copy"] = str(error)
%s
report["registered"] = [
    "skd_ctc" in models.MODEL_REGISTRY, {"skd_ctc", "kd_ctc"} <= set(criterions.CRITERION_REGISTRY),
    hasattr(trainer.Trainer.train_step, "__wrapped__"), hasattr(data.HubertDataset.get_label, "__wrapped__"),
]
utils.import_user_module(argparse.Namespace(user_dir=sys.argv[3]))
report["checks trainings"] = hasattr(fairseq_cli.train.add_defaults, "__wrapped__")
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def firsts(places: Path) -> dict[str, Any]:
    """One process per module that is imported before fairseq."""
    dirs = [str(PACKAGE), str(places / "elsewhere" / "fairseq_skd"), str(places / "links" / "fairseq_skd")]
    started = {
        module: start(["-c", f"import {module}\n{AFTER % told}", *dirs], places, True) for module, told in FIRST.items()
    }
    return {module: json.loads(finish(process)) for module, process in started.items()}


@pytest.mark.parametrize("first", FIRST)
def test_imported_before_fairseq_it_still_registers(firsts: dict[str, Any], first: str) -> None:
    assert firsts[first]["registered"] == [True] * 4


@pytest.mark.parametrize("first", FIRST)
def test_imported_before_fairseq_it_checks_trainings(firsts: dict[str, Any], first: str) -> None:
    assert firsts[first]["checks trainings"]


@pytest.mark.parametrize("first", FIRST)
def test_imported_before_fairseq_it_names_both_copies(firsts: dict[str, Any], places: Path, first: str) -> None:
    second = (places / "elsewhere" / "fairseq_skd").resolve()
    assert firsts[first]["copy"].startswith(f"common.user_dir={second} is a second copy of fairseq_skd, {PACKAGE} is")


def test_the_package_imports_neither_fairseq_nor_torch(firsts: dict[str, Any]) -> None:
    assert firsts["fairseq_skd"]["before"] == []


@pytest.mark.parametrize("first", ["fairseq_skd", "fairseq.models, fairseq_skd"])
def test_a_checkpoint_is_opened_in_a_new_process(places: Path, first: str) -> None:
    code = f"import sys, {first}; print(fairseq_skd.load(sys.argv[1], device='cpu').transcribe(sys.argv[2:])[0])"
    goldens = Path(__file__).parent / "goldens"
    files = [str(goldens / "hubert.pt"), str(goldens / "corpus" / "test1.flac")]
    output, errors = start(["-c", code, *files], places, True).communicate()
    assert output == "IT IS\n", errors
    assert "HubertModel" not in errors and "weight_norm" not in errors  # fairseq's log, torch's warning


def test_manifests_are_made_without_fairseq_and_torch(places: Path) -> None:
    code = "import sys, fairseq_skd.manifest; print(sorted({'fairseq', 'hydra', 'torch'} & set(sys.modules)))"
    assert finish(start(["-c", code], places, True)) == "[]\n"


def test_the_harmful_file_is_harmful(places: Path, tmp_path: Path) -> None:
    """The file that is refused above runs code in a loader that allows it."""
    path = tmp_path / "harmful.pt"
    torch.save(MakesFolder(tmp_path / "made"), path)
    with pytest.MonkeyPatch.context() as patching:
        patching.delenv(FORCE)
        torch.load(path, weights_only=False)
    assert (tmp_path / "made").is_dir()


def test_the_module_prints_the_path_and_nothing_else(reports: dict[str, Any]) -> None:
    assert reports["printed"] == f"{PACKAGE}\n"
