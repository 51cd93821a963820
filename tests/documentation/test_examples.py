"""Run every shell, Python and YAML example of README and docs, page by page, on small real files.

A command that cannot run here is named in ELSEWHERE with its reason, and checked otherwise.
"""

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.documentation import world
from tests.documentation.pages import NAMES, REPOSITORY, RUN, SHOWN, Block, blocks, commands, here, shortened

WITH_EXAMPLES = [page for page in NAMES if any(block.language in RUN for block in blocks(page))]
# Page -> files that its text promises, as the documentation names them.
PROMISED: dict[str, list[str]] = {
    "README.md": ["/data/manifests/train.tsv", "/data/manifests/dict.ltr.txt", "/runs/skd/checkpoint_last.pt"],
    "docs/your-data.md": [
        *(f"/data/manifests/{name}" for name in ("train.tsv", "train.ltr", "train.wrd", "train.spk", "dict.ltr.txt")),
        *("/data/librispeech/train-clean-100.tsv", "/data/from-kaldi/dev.tsv", "/data/libri460/valid.tsv"),
        *(f"/data/pieces/{name}" for name in ("train.spm", "dict.spm.txt", "spm.model")),
        *("/data/manifests-de/valid.ltr", "/runs/deutsch/valid6/summary.json", "/runs/deutsch/align/align.json"),
        *("/runs/deutsch/report.html", "/runs/deutsch/hf/model.safetensors"),
        *("/data/manifests-zh/dict.ltr.txt", "/runs/zhongwen/checkpoint_best.pt", "/data/untranscribed/test.tsv"),
    ],
    "docs/training.md": [
        *(f"/runs/{run}/checkpoint_best.pt" for run in ("long", "two", "from-ctc", "mine", "guide")),
        *(f"/runs/skd/{name}" for name in ("checkpoint_last.pt", "hydra_train.log")),
    ],
    "docs/export-onnx.md": [
        *(f"/runs/skd/onnx6/{name}" for name in ("model.onnx", "model.int8.onnx", "tokens.txt", "config.json")),
        *(f"/runs/skd/{name}" for name in ("onnx6/decode.py", "sherpa6/model.onnx", "sherpa6/tokens.txt")),
    ],
    "docs/encoders.md": ["/runs/wavlm/checkpoint_best.pt"],
    "docs/decoding.md": [
        *(f"/runs/skd/test6/{name}" for name in ("hypo.word", "ref.word", "hypo.units", "ref.units", "summary.json")),
        *("3gram.arpa", "/data/manifests/lexicon.txt", "/runs/skd/sweep/multirun.tsv"),
    ],
    "docs/transcription.md": [
        *("subtitles/001.srt", "/runs/skd/times/hypo.ctm", "pseudo.tsv", "/data/pseudo/train.tsv"),
        "/runs/pseudo/checkpoint_last.pt",
    ],
    "docs/export.md": [
        *(f"/runs/skd/student/{name}" for name in ("README.md", "checkpoint.pt", "dict.ltr.txt")),
        *(f"/runs/skd/student-hf/{name}" for name in ("README.md", "config.json", "model.safetensors", "vocab.json")),
        "/runs/on/checkpoint_last.pt",
    ],
    "docs/export-web.md": [f"/runs/skd/web/{name}" for name in ("index.html", "exit-6.onnx", "exit-12.onnx")],
    "docs/alignment.md": [
        *(f"/runs/skd/align/{name}" for name in ("align.json", "offsets.png", "spikes-0.png", "spikes-2.png")),
        *("/runs/skd/against-ctc/align.json", "/runs/report.html"),
    ],
}


def _is_a_target(command: str) -> None:
    """``make -n`` knows the target."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    words = shlex.split(command)
    done = subprocess.run(
        [*words, "-n", f"PYTHON={sys.executable}"],
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if not re.match("MAKE|MFLAGS", name)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"


def _can_be_required(command: str) -> None:
    """What pip is asked for is a requirement, or this folder with extras that setup.cfg has."""
    config = configparser.RawConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    for word in shlex.split(command)[2:]:
        if word.startswith("-"):
            continue
        name = word.replace(".[", "fairseq_skd[") if word.startswith(".[") else word
        if name == ".":
            continue
        requirement = Requirement(name)
        if requirement.name == "fairseq_skd":
            assert requirement.extras <= config["options.extras_require"].keys(), command


def _is_a_command(command: str) -> None:
    """It parses as words of a shell."""
    assert shlex.split(command)


def _is_in_the_checkout(command: str) -> None:
    """The script or module of a Python command is a file."""
    words = shlex.split(command)
    file = f"{words[2].replace('.', '/')}.py" if words[1] == "-m" else words[1]
    assert (REPOSITORY / file).is_file(), command


# Commands that do not run here: pattern, reason, what is checked in their place.
ELSEWHERE: list[tuple[str, str, Callable[[str], None]]] = [
    (r"make\b", "installs, or runs this suite", _is_a_target),
    (r"pip install\b", "asks the package index", _can_be_required),
    (r"npm install\b", "asks the registry of npm", _is_a_command),
    (r"python -m http\.server\b", "does not end", _is_a_command),
    (r"git clone\b", "asks the network", _is_a_command),
    (r"cd\b", "the folder of the checkout", _is_a_command),
    (r"git (diff|log|show)\b", "shows the checkout", _is_a_command),
    (r"pre-commit\b", "writes into the checkout", _is_a_command),
    (r"python config/\w+\.py$|python -m tests\.", "writes into the checkout; other tests compare", _is_in_the_checkout),
    (r"\. .*/bin/activate", "an environment that make writes", _is_a_command),
]


def runs_elsewhere(command: str) -> Callable[[str], None] | None:
    """The check in place of a run; None: it runs here."""
    return next((check for pattern, _, check in ELSEWHERE if re.match(pattern, command)), None)


class Example:
    """One page: its blocks run in order, in a folder of its own."""

    def __init__(self, page: str, folder: Path, models: Path) -> None:
        self.page, self.folder = page, folder
        self.work = world.build(folder, models)

    def run(self) -> None:
        """Run all blocks; Python blocks that follow each other are one program."""
        for language, group in groupby(blocks(self.page), lambda block: block.language):
            found = list(group)
            if language == "python":
                self._call([sys.executable, "-c"], "\n".join(block.text for block in found), found[0])
            for block in found:
                if language in ("sh", "bash"):
                    script = "\n".join(shortened(command) for command in commands(block) if not runs_elsewhere(command))
                    self._call(["bash", "-euo", "pipefail", "-c"], script, block)
                if language == "yaml":
                    self._write(block)

    def _call(self, program: list[str], script: str, block: Block) -> None:
        if not script:
            return
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            [*program, here(script, self.folder)],
            stdin=subprocess.DEVNULL,
            cwd=self.work,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{block}: exit status {done.returncode}\n{script}\n{done.stdout[-3000:]}"

    def _write(self, block: Block) -> None:
        """A YAML that begins with its name as a comment is that file; every YAML is one."""
        assert yaml.safe_load(block.text), str(block)
        if name := re.match(r"# ([\w./]+\.yaml)\n", block.text):
            (self.work / name[1]).parent.mkdir(parents=True, exist_ok=True)
            (self.work / name[1]).write_text(here(block.text, self.folder), encoding="utf-8")


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Example, Future]]:
    """Two pages at a time: most of a command's time is one core's."""
    folder = tmp_path_factory.mktemp("documentation")
    world.build_models(folder)
    asked = {
        item.callspec.params["page"] for item in request.session.items if item.name.startswith("test_examples_run[")
    }
    examples = {page: Example(page, folder / page.replace("/", "-"), folder) for page in WITH_EXAMPLES if page in asked}
    with ThreadPoolExecutor(2) as pool:
        yield {page: (example, pool.submit(example.run)) for page, example in examples.items()}


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_EXAMPLES)
def test_examples_run(page: str, runs: dict[str, tuple[Example, Future]]) -> None:
    example, done = runs[page]
    done.result()
    for name in PROMISED.get(page, []):
        place = example.folder / name[1:] if name.startswith("/") else example.work / name
        assert place.exists(), f"{page} promises {name}"


@pytest.mark.parametrize("page", NAMES)
def test_every_block_says_its_language(page: str) -> None:
    """Otherwise it would be no example, silently."""
    for block in blocks(page):
        assert block.language in (*RUN, *SHOWN), f"{block}: ```{block.language}"


@pytest.mark.slow
@pytest.mark.parametrize("page", NAMES)
def test_what_does_not_run_here_is_checked(page: str) -> None:
    for block in blocks(page):
        if block.language in ("sh", "bash"):
            for command in commands(block):
                if check := runs_elsewhere(command):
                    check(command)
