"""Which fairseq is installed where, the pins of CI, and what make says when it cannot go on."""

import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.builders import write_corpus

ROOT = Path(__file__).resolve().parents[1]
OURS = "fairseq_skd"

PLATFORMS = {
    "python 3.10, linux": {"python_version": "3.10", "sys_platform": "linux", "platform_machine": "x86_64"},
    "python 3.11, linux": {"python_version": "3.11", "sys_platform": "linux", "platform_machine": "x86_64"},
    "python 3.12, linux": {"python_version": "3.12", "sys_platform": "linux", "platform_machine": "x86_64"},
    "python 3.11, linux on arm": {"python_version": "3.11", "sys_platform": "linux", "platform_machine": "aarch64"},
    "python 3.12, mac": {"python_version": "3.12", "sys_platform": "darwin", "platform_machine": "arm64"},
    "python 3.13, linux": {"python_version": "3.13", "sys_platform": "linux", "platform_machine": "x86_64"},
    "python 3.13, mac": {"python_version": "3.13", "sys_platform": "darwin", "platform_machine": "arm64"},
}


def declared() -> list[Requirement]:
    """Every requirement of setup.cfg, with those of the extras."""
    config = configparser.RawConfigParser()
    config.read(ROOT / "setup.cfg")
    blocks = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    return [Requirement(line) for block in blocks for line in block.splitlines() if line]


def pinned(environment: dict[str, str] | None = None) -> dict[str, Requirement]:
    """Map names to lines of constraints.txt that hold in an environment (this one: None)."""
    pins: dict[str, Requirement] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if text := line.split("#")[0].strip():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                name = canonicalize_name(requirement.name)
                assert name not in pins, f"{name} is pinned twice"
                pins[name] = requirement
    return pins


def version(pin: Requirement) -> str:
    (specifier,) = pin.specifier
    assert specifier.operator == "=="
    return specifier.version


@pytest.mark.parametrize(
    ("platform", "fairseq"),
    [
        ("python 3.10, linux", "fairseq==0.12.2"),
        ("python 3.11, linux", "ve-fairseq==0.12.3"),
        ("python 3.12, linux", "ve-fairseq==0.12.3"),
        ("python 3.11, linux on arm", "fairseq-fixed==0.12.3.1"),
        ("python 3.12, mac", "fairseq-fixed==0.12.3.1"),
        ("python 3.13, linux", "fairseq-fixed==0.12.3.1"),
        ("python 3.13, mac", "fairseq-fixed==0.12.3.1"),
    ],
)
def test_each_platform_gets_one_fairseq(platform: str, fairseq: str) -> None:
    chosen = [
        f"{requirement.name}{requirement.specifier}"
        for requirement in declared()
        if "fairseq" in requirement.name and requirement.name != OURS
        if requirement.marker is None or requirement.marker.evaluate(PLATFORMS[platform])
    ]
    assert chosen == [fairseq]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_pins_satisfy_what_is_declared(platform: str) -> None:
    pins = pinned(PLATFORMS[platform])
    for requirement in declared():
        if requirement.name == OURS or (
            requirement.marker is not None and not requirement.marker.evaluate(PLATFORMS[platform])
        ):
            continue
        assert requirement.specifier.contains(version(pins[canonicalize_name(requirement.name)])), str(requirement)


@pytest.mark.skipif(ROOT / ".venv" not in Path(sys.prefix).parents, reason="not an environment that make installed")
def test_every_version_of_the_environment_is_pinned() -> None:
    pins = pinned()
    installed = {
        canonicalize_name(found.metadata["Name"]): found.version.split("+")[0]  # torch's build tag does not count
        for found in importlib.metadata.distributions()
    }
    installed.pop(canonicalize_name(OURS))
    unlike = {name: (found, str(pins.get(name))) for name, found in installed.items() if name not in pins}
    unlike |= {
        name: (found, str(pins[name]))
        for name, found in installed.items()
        if name in pins and not pins[name].specifier.contains(found)
    }
    # On 3.10 nothing asks for setuptools, so a venv keeps its own; builds use the pin.
    if sys.version_info < (3, 11):
        unlike.pop(canonicalize_name("setuptools"), None)
    assert not unlike


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source distribution.

    Built without the network, from a copy: setuptools writes beside what it builds.
    """
    pytest.importorskip("setuptools", minversion="77", reason="setuptools is older than pyproject.toml asks for")
    folder = tmp_path_factory.mktemp("built")
    for name in ("fairseq_skd", "config"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    build = "from setuptools import build_meta as build; build.build_wheel('.'); build.build_sdist('.')"
    subprocess.run([sys.executable, "-c", build], cwd=folder, check=True, capture_output=True)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, source


@pytest.mark.slow
def test_wheel_and_source_carry_all_files(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as in_wheel, tarfile.open(built[1]) as in_source:
        wheel, source = set(in_wheel.namelist()), {name.partition("/")[2] for name in in_source.getnames()}
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "fairseq_skd").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    yamls = {path.relative_to(ROOT).as_posix() for path in (ROOT / "config").glob("*/*.yaml")}
    assert {"config/decode/viterbi.yaml", "config/align/align.yaml", "config/finetune/hubert_mini.yaml"} < yamls
    assert package | yamls <= source
    installed = {f"fairseq_skd/{name}" for name in yamls if not name.startswith("config/run/")}  # of experiments/
    assert {name for name in wheel if ".dist-info/" not in name} == package | installed


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an empty environment with the wheel; the running one holds its dependencies."""
    folder = tmp_path_factory.mktemp("an environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = ["-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet", str(built[0])]
    subprocess.run([sys.executable, *install], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Path files in these folders are not read: an editable install stays out.
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return python


@pytest.mark.slow
def test_the_wheel_trains_decodes_and_aligns_from_another_folder(installed: Path, tmp_path: Path) -> None:
    data = write_corpus(tmp_path / "data", {"train": [("GO ON", 0.9), ("NO", 0.7)], "valid": [("GO", 0.6)] * 3})
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    here = tmp_path / "else where"
    here.mkdir()

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(installed), *arguments], cwd=here, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    file = run("-c", "import fairseq_skd; print(fairseq_skd.__file__)").strip()
    assert Path(file).is_relative_to(installed.parents[1])
    pretrained = ROOT / "tests" / "goldens" / "hubert.pretrained.pt"
    run(
        *("-m", "fairseq_skd.train", "hubert_mini", "task.data=../data", f"model.w2v_path={pretrained}"),
        *("model.student_layers=[2]", "optimization.max_update=2", "dataset.num_workers=0", "checkpoint.save_dir=run"),
    )
    checkpoint = "common_eval.path=run/checkpoint_best.pt"
    shared = [f"task.data={data}", checkpoint, "dataset.gen_subset=valid", "dataset.num_workers=0"]
    assert run("-m", "fairseq_skd.infer", *shared, "decoding.layer=2").startswith("WER ")
    assert "disagreement" in run("-m", "fairseq_skd.align", *shared, "align.resamples=100", "align.examples=[]")
    assert {path.name for path in here.iterdir()} == {"run", "decode", "align"}
    assert (here / "run" / "hydra_train.log").is_file()


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "exec make test"


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make in the checkout, free of the make that may be running these tests."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    clean = {name: value for name, value in os.environ.items() if not re.match("(MAKE|MFLAGS|PYTHON$)", name)}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=clean, capture_output=True, text=True)


@pytest.fixture
def interpreter(tmp_path: Path):
    """Make an interpreter that says it is of a version, and imports no module."""

    def write(says: str) -> Path:
        file = tmp_path / "python"
        file.write_text(f'#!/bin/sh\ncase "$2" in *platform*) echo "{says}-x86_64";; *) exit 1;; esac\n')
        file.chmod(0o755)
        return file

    return write


def test_make_alone_lists_the_targets() -> None:
    shown = make(f"PYTHON={sys.executable}")
    assert shown.returncode == 0
    for target in ("help", "demo", "test", "lint", "format", "install", "clean"):
        assert re.search(rf"^  {target} +\w", shown.stdout, re.MULTILINE)


@pytest.mark.parametrize("found", ["3.9.18", "3.14.0", "2.7.18"])
def test_make_refuses_another_python(interpreter, found: str) -> None:
    refused = make("install", f"PYTHON={interpreter(found)}")
    assert refused.returncode == 2
    (sentence,) = refused.stderr.splitlines()
    assert f"is Python {found}-x86_64, but fairseq_skd needs Python 3.10 to 3.13" in sentence


def test_make_refuses_what_does_not_run() -> None:
    refused = make("test", "PYTHON=/nowhere/python3.11")
    assert refused.returncode == 2
    (sentence,) = refused.stderr.splitlines()
    assert "PYTHON=/nowhere/python3.11 does not run as a Python interpreter" in sentence


def test_make_refuses_a_python_without_venv(interpreter) -> None:
    refused = make("demo", f"PYTHON={interpreter('3.11.77')}")
    assert refused.returncode == 2
    (sentence,) = refused.stderr.splitlines()
    assert "cannot make virtual environments" in sentence
    assert "python3-venv" in sentence
    assert not (ROOT / ".venv" / "3.11.77-x86_64").exists()
