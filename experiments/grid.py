"""A grid of experiments read from YAML: which runs it asks for, and the commands of each."""

import itertools
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.claims import Claim
from fairseq_skd.demo.plan import hydra_overrides
from fairseq_skd.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
TEACHER = "{teacher}"  # in an arm's settings: the best checkpoint of the arm that it needs, of the same seed
CHECKPOINT = Path("checkpoints", "checkpoint_best.pt")  # below the folder of a run
_KEYS = {"corpus", "config", "seeds", "subsets", "common", "decode", "tries", "arms", "claims"}
_ARM_KEYS = {"exits", "set", "needs", "config", "seeds", "tries"}


@dataclass(frozen=True)
class Run:
    """One training run and the decodings that follow it.

    Attributes:
        arm: its name in the grid.
        seed: of fairseq and of the masks.
        folder: of its own; holds checkpoints, logs, decoded texts and the result.
        exits: layer counts that are decoded.
        train: the training command.
        decode: (subset, exit layer) -> command.
        align: exit layer of a student -> command that compares where its teacher and it spike, on the last subset. The
            teacher is the full model of the same run, or that of the arm it needs.
        needs: the arm whose run of the same seed has to be done before.
    """

    corpus: str
    arm: str
    seed: int
    folder: Path
    exits: tuple[int, ...]
    train: tuple[str, ...]
    decode: Mapping[tuple[str, int], tuple[str, ...]]
    align: Mapping[int, tuple[str, ...]]
    needs: str | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.corpus} {self.arm} seed {self.seed}"

    @property
    def checkpoint(self) -> Path:
        """What is decoded: the best on the validation set."""
        return self.folder / CHECKPOINT


def read_grid(path: Path) -> dict[str, Any]:
    """A grid's YAML, checked.

    Raises:
        UserError: not such a file, an unknown key, an arm that needs one that is not there or comes later, or a
            claim about what is not in it.
    """
    try:
        grid = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"grid {path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UserError(f"grid {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(grid, dict) or set(grid) != _KEYS:
        raise UserError(f"grid {path} has to have exactly the keys {', '.join(sorted(_KEYS))}")
    known: set[str] = set()
    for name, arm in grid["arms"].items():
        foreign = set(arm) - _ARM_KEYS
        if foreign:
            known_keys = ", ".join(sorted(_ARM_KEYS))
            raise UserError(f"grid {path}: arm {name} has the unknown key {min(foreign)}, it can have {known_keys}")
        needs = arm.get("needs")
        if needs is not None and needs not in known:
            raise UserError(f"grid {path}: arm {name} needs {needs}, which is not among the arms above it")
        if needs is None and TEACHER in arm.get("set", {}).values():
            raise UserError(f"grid {path}: arm {name} has {TEACHER} and no needs, which says whose checkpoint that is")
        known.add(name)
    try:
        for entry in grid["claims"]:
            Claim.read(entry, grid["arms"])
    except UserError as error:
        raise UserError(f"grid {path}: {error}") from None
    return grid


def runs_of(
    grid: Mapping[str, Any],
    out: Path,
    overrides: Sequence[str],
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Run]:
    """The runs of a grid, seeds outermost, an arm after those it needs.

    Args:
        grid: from :func:`read_grid`.
        out: folder of all runs; absolute.
        overrides: ``key=value`` for every training and, where it is a key of both, for decoding: ``task.data=...``.
        arms: only these.
        seeds: instead of the grid's and the arms'.

    Raises:
        UserError: an arm that the grid lacks.
    """
    for name in arms or ():
        if name not in grid["arms"]:
            raise UserError(f"--arms {name}: the grid has {', '.join(grid['arms'])}")
    return [
        _run(grid, out, overrides, name, seed)
        for seed in seeds or grid["seeds"]
        for name, arm in grid["arms"].items()
        if (not arms or name in arms) and (seeds or seed in arm.get("seeds", grid["seeds"]))
    ]


def tries_of(grid: Mapping[str, Any]) -> dict[str, Any]:
    """The grid of the short tries that weights are chosen from: an arm for each value, the first seed and subset.

    The teachers that they need are the grid's own.
    """
    arms = {
        f"{name}-{value}": {
            **{key: arm[key] for key in arm if key not in ("tries", "seeds")},
            "set": {**arm.get("set", {}), **grid["tries"], key: value},
        }
        for name, arm in grid["arms"].items()
        for key, values in arm.get("tries", {}).items()
        for value in values
    }
    return {**grid, "seeds": grid["seeds"][:1], "subsets": grid["subsets"][:1], "arms": arms}


def _run(grid: Mapping[str, Any], out: Path, overrides: Sequence[str], name: str, seed: int) -> Run:
    arm = grid["arms"][name]
    folder = _folder(out, grid, name, seed)
    checkpoint, needs = folder / CHECKPOINT, arm.get("needs")
    teacher = _folder(out, grid, needs, seed) / CHECKPOINT if needs else None
    settings = {
        "common.user_dir": REPOSITORY / "fairseq_skd",
        **grid["common"],
        **{key: teacher if value == TEACHER else value for key, value in arm.get("set", {}).items()},
        "common.seed": seed,
        "checkpoint.save_dir": checkpoint.parent,
        "hydra.run.dir": folder,
    }
    train = (
        *(sys.executable, "-m", "fairseq_cli.hydra_train", *_config("finetune", arm.get("config", grid["config"]))),
        *hydra_overrides(settings),
        *overrides,
    )
    data = [override for override in overrides if override.partition("=")[0] == "task.data"]
    given = {**grid["decode"], "common_eval.path": checkpoint}
    decode = {}
    for subset, layer in itertools.product(grid["subsets"], arm["exits"]):
        chosen = {
            **given,
            "dataset.gen_subset": subset,
            "decoding.layer": layer,
            "decoding.results_path": folder / "decode" / f"{subset}-layer{layer}",
        }
        command = (sys.executable, "-m", "fairseq_skd.infer", *_config("decode", "viterbi"))
        decode[subset, layer] = (*command, *hydra_overrides(chosen), *data)
    align = {}
    for layer in arm["exits"] if needs else arm["exits"][1:]:
        chosen = {
            **given,
            "dataset.gen_subset": grid["subsets"][-1],
            "align.layer": layer,
            **({"align.teacher_path": teacher} if needs else {}),
            "common_eval.results_path": folder / "align" / f"layer{layer}",
        }
        command = (sys.executable, "-m", "fairseq_skd.align", *_config("align", "align"))
        align[layer] = (*command, *hydra_overrides(chosen), *data)
    return Run(grid["corpus"], name, seed, folder, tuple(arm["exits"]), train, decode, align, needs)


def _config(folder: str, name: str) -> tuple[str, ...]:
    return "--config-dir", str(REPOSITORY / "config" / folder), "--config-name", name


def _folder(out: Path, grid: Mapping[str, Any], arm: str, seed: int) -> Path:
    return out / grid["corpus"] / arm / f"seed{seed}"


def shown(command: Sequence[str]) -> str:
    """A command for a shell, from the repository's folder."""
    program = "python" if command[0] == sys.executable else command[0]
    return shlex.join((program, *command[1:])).replace(f"{REPOSITORY}/", "")
