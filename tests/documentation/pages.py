"""Find the examples of a page and turn them into scripts that run here."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "manifests/README.md", "config/README.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
NAMES = [path.relative_to(REPOSITORY).as_posix() for path in PAGES if path.is_file()]
RUN = ("sh", "bash", "python", "yaml")
SHOWN = ("text", "json", "tsv")  # formulas, output, formats of files
_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)

# What makes a training of any recipe short.
SHORT = (
    *("common.cpu=true", "common.fp16=false", "distributed_training.distributed_world_size=1"),
    *("optimization.max_update=2", "optimization.update_freq=[1]", "model.freeze_finetune_updates=0"),
    *("dataset.max_tokens=64000", "dataset.num_workers=0", "dataset.validate_after_updates=0"),
)
_TRAINS = re.compile(r"^(python -m fairseq_skd\.train|fairseq-hydra-train) ")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}"


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    content = (REPOSITORY / page).read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(content):
        lines = match["text"].splitlines(keepends=True)
        text = "".join(line.removeprefix(match["indent"]) for line in lines)
        found.append(Block(page, content.count("\n", 0, match.start()) + 1, match["language"], text))
    return found


def commands(block: Block) -> Iterator[str]:
    """The commands of a shell block, continued lines joined, without comments and empty lines."""
    for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
        command = re.sub(r"(^|\s+)#.*$", "", line).strip()
        if command:
            yield command


def shortened(command: str) -> str:
    """A command that does the same in seconds: two updates on the CPU, few word pieces."""
    if _TRAINS.match(command):
        command = " ".join((command, *SHORT))
    command = re.sub(r"--min-confidence [\d.]+", "--min-confidence 0", command)  # random weights are never sure
    return re.sub(r"--vocab-size \d+", "--vocab-size 30", command)


def here(text: str, world: Path) -> str:
    """The documentation's paths, in a folder of the test."""
    return re.sub(r"(?<![\w./])/(data|models|runs)\b", rf"{world}/\1", text)
