"""Compare what the project's files say twice: versions, Pythons, commands."""

import configparser
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import fairseq_skd
from tests.test_install import make

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "test.yml"
FORM = ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml"
HOOKS = ROOT / ".pre-commit-config.yaml"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CODE = re.findall(r"```sh\n(.*?)```|`([^`\n]+)`", CONTRIBUTING, re.DOTALL)
COMMANDS = [line.partition("#")[0].strip() for pair in CODE for line in "\n".join(pair).splitlines()]


def metadata() -> dict[str, str]:
    config = configparser.RawConfigParser()
    config.read(ROOT / "setup.cfg")
    return dict(config["metadata"])


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_one_version() -> None:
    version = metadata()["version"]
    newest = re.search(r"^## \[(\d[^\]]*)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None and newest[1] == version
    assert read(ROOT / "CITATION.cff")["version"] == version
    assert fairseq_skd.__version__ == version


def test_one_licence_and_one_author() -> None:
    citation, ours = read(ROOT / "CITATION.cff"), metadata()
    assert citation["license"] == ours["license"]
    assert citation["authors"] == [{"name": ours["author"]}]


def test_the_workflow_tests_pythons_that_we_support() -> None:
    job = read(WORKFLOW)["jobs"]["test"]
    tested = job["strategy"]["matrix"]["python-version"]
    assert tested == ["3.10", "3.11", "3.12"]  # texts: 3.10 as a number is 3.1
    classifiers = metadata()["classifiers"].split("\n")
    assert {f"Programming Language :: Python :: {version}" for version in tested} <= set(classifiers)
    assert job["steps"][-1]["run"].startswith("make test PYTHON=python")


def test_the_workflow_can_write_nothing() -> None:
    workflow = read(WORKFLOW)
    assert workflow["permissions"] == {"contents": "read"}
    assert "permissions" not in workflow["jobs"]["test"]


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_github_s_files_parse(path: Path) -> None:
    assert isinstance(read(path), dict)


def test_a_bug_report_asks_for_command_log_and_environment() -> None:
    fields = {field["id"]: field for field in read(FORM)["body"] if "id" in field}
    assert {"command", "log", "environment"} <= {name for name in fields if fields[name]["validations"]["required"]}
    assert "`python -m fairseq_skd.env`" in fields["environment"]["attributes"]["label"]


def test_the_hooks_are_the_linters_of_make() -> None:
    """Ruff's hooks get the names of files, so they need --force-exclude."""
    shown = make("--dry-run", "--always-make", "lint").stdout
    linters = set(re.findall(r"/bin/(?:python -m )?(ruff \w+|mypy|lint-imports)", shown))
    (repository,) = read(HOOKS)["repos"]
    assert repository["repo"] == "local" and all(hook["language"] == "system" for hook in repository["hooks"])
    entries = {
        hook["entry"].removeprefix("python -m ").removesuffix(" --force-exclude") for hook in repository["hooks"]
    }
    assert entries == linters == {"ruff check", "ruff format", "mypy", "lint-imports"}


def test_the_source_distribution_has_them() -> None:
    manifest = (ROOT / "MANIFEST.in").read_text()
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", HOOKS.name, ".github"):
        assert re.search(rf"(^|\s){re.escape(name)}\s", manifest), name


@pytest.mark.parametrize("command", [command for command in COMMANDS if re.match(r"make |python ", command)])
def test_commands_for_contributors_exist(command: str) -> None:
    program, first, *others = command.split()
    if program == "make":
        assert re.search(rf"^{first}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif first == "-m":
        assert importlib.util.find_spec(others[0]) is not None
    else:
        assert (ROOT / first).is_file()


def test_files_for_contributors_exist() -> None:
    """Find the paths in code and links, from the root or from ``fairseq_skd/``."""
    quoted = [text for _, text in CODE if re.fullmatch(r"[\w./]+(\.\w+|/)", text) and "/" in text]
    linked = re.findall(r"\]\(([^)#:]+)\)", CONTRIBUTING)
    assert len(quoted) > 10 and len(linked) > 2
    for name in (*quoted, *linked):
        assert (ROOT / name).exists() or (ROOT / "fairseq_skd" / name).exists(), name
