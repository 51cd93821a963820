"""Which fairseq is installed where, the pins of CI, and what make says when it cannot go on."""

import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
    """The lines of constraints.txt that hold in an environment (this one: None), by name; each name at most once."""
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
    # A venv's own setuptools may stay as it came where nothing asks for it (3.10); what is built uses the pin.
    if sys.version_info < (3, 11):
        unlike.pop(canonicalize_name("setuptools"), None)
    assert not unlike


@pytest.mark.slow
def test_wheel_and_source_carry_types_and_the_page(tmp_path: Path) -> None:
    """Built without the network, from a copy: setuptools writes beside what it builds."""
    pytest.importorskip("setuptools", minversion="77", reason="setuptools is older than pyproject.toml asks for")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "fairseq_skd", tmp_path / "fairseq_skd", ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = "from setuptools import build_meta as build; build.build_wheel('.'); build.build_sdist('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,), (source,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as in_wheel, tarfile.open(source) as in_source:
        built = [set(in_wheel.namelist()), {name.partition("/")[2] for name in in_source.getnames()}]
    for names in built:
        assert "fairseq_skd/py.typed" in names
        assert [name for name in names if name.endswith(".html.j2")]


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
