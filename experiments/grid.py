"""The runs that a grid of experiments asks for, and the commands of each."""

import itertools
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from experiments.grid_file import REPOSITORY, TEACHER, aligned_exits
from fairseq_skd.errors import UserError
from fairseq_skd.overrides import hydra_overrides

CHECKPOINT = Path("checkpoints", "checkpoint_best.pt")  # below the folder of a run
# Of what is given for training, what decoding has to be told as well.
_BOTH = ("task.data", "task.label_dir", "common.cpu")


class Data(NamedTuple):
    """What a run is trained and decoded on.

    Attributes:
        manifests: folder of <split>.tsv.
        labels: folder of <split>.<extension> and of the dictionaries.
        splits: those of training and validation.
        extensions: of the labels.
    """

    manifests: Path
    labels: Path
    splits: tuple[str, ...]
    extensions: tuple[str, ...]

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> "Data":
        """That of a training's settings; ``task.data`` is among them."""
        manifests = Path(str(settings["task.data"]))
        names = [str(settings.get(f"dataset.{split}_subset", split)) for split in ("train", "valid")]
        labels = yaml.safe_load(str(settings.get("task.labels", "ltr")))
        extensions = tuple(map(str, labels)) if isinstance(labels, list) else (str(labels),)
        return cls(manifests, Path(str(settings.get("task.label_dir", manifests))), tuple(names), extensions)

    def files(self, *splits: str) -> list[Path]:
        """Manifests and labels of some splits."""
        labels = [self.labels / f"{split}.{extension}" for split in splits for extension in self.extensions]
        return [self.manifests / f"{split}.tsv" for split in splits] + labels

    def training_files(self) -> list[Path]:
        """All that training reads but the audio."""
        return self.files(*self.splits) + [self.labels / f"dict.{extension}.txt" for extension in self.extensions]


@dataclass(frozen=True)
class Run:
    """One training run and the decodings that follow it.

    Attributes:
        arm: its name in the grid.
        seed: of fairseq and of the masks.
        folder: of its own; holds checkpoints, logs, decoded texts and the result.
        exits: layer counts that are decoded.
        data: what it is trained and decoded on.
        encoder: the pretrained one; a file, or a folder in transformers' format.
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
    data: Data
    encoder: Path
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


def runs_of(
    grid: Mapping[str, Any],
    out: Path,
    given: Mapping[str, object],
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Run]:
    """The runs of a grid, seeds outermost, an arm after those it needs.

    Args:
        grid: from :func:`~experiments.grid_file.read_grid`.
        out: folder of all runs; absolute.
        given: settings of every training, ``task.data`` among them; where the data are and whether to stay on the CPU,
            for what follows as well.
        arms: only these.
        seeds: instead of the grid's and the arms'.

    Raises:
        UserError: an arm that the grid lacks.
    """
    for name in arms or ():
        if name not in grid["arms"]:
            raise UserError(f"--arms {name}: the grid has {', '.join(grid['arms'])}")
    asked = {name: seeds or arm.get("seeds", grid["seeds"]) for name, arm in grid["arms"].items()}
    return [
        _run(grid, out, given, name, seed)
        for seed in dict.fromkeys(itertools.chain(seeds or grid["seeds"], *asked.values()))
        for name in grid["arms"]
        if (not arms or name in arms) and seed in asked[name]
    ]


def _run(grid: Mapping[str, Any], out: Path, given: Mapping[str, object], name: str, seed: int) -> Run:
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
        **given,
    }
    train = (
        *(sys.executable, "-m", "fairseq_cli.hydra_train", *_config("finetune", arm.get("config", grid["config"]))),
        *hydra_overrides(settings),
    )
    evaluated = {**grid["decode"], "common_eval.path": checkpoint}
    shared = {key: given[key] for key in _BOTH if key in given}
    decode = {}
    for subset, layer in itertools.product(grid["subsets"], arm["exits"]):
        chosen = {
            **evaluated,
            "dataset.gen_subset": subset,
            "decoding.layer": layer,
            "common_eval.results_path": decoded(folder, subset, layer),
            **shared,
        }
        command = (sys.executable, "-m", "fairseq_skd.infer", *_config("decode", "viterbi"))
        decode[subset, layer] = (*command, *hydra_overrides(chosen))
    align = {}
    for layer in aligned_exits(arm):
        chosen = {
            **evaluated,
            "dataset.gen_subset": grid["subsets"][-1],
            "align.layer": layer,
            **({"align.teacher_path": teacher} if needs else {}),
            "common_eval.results_path": aligned(folder, layer),
            **shared,
        }
        command = (sys.executable, "-m", "fairseq_skd.align", *_config("align", "align"))
        align[layer] = (*command, *hydra_overrides(chosen))
    data, encoder, exits = Data.of(settings), Path(str(settings["model.w2v_path"])), tuple(arm["exits"])
    return Run(grid["corpus"], name, seed, folder, exits, data, encoder, train, decode, align, needs)


def decoded(folder: Path, subset: str, layer: int) -> Path:
    """Where the texts of a subset lie, below the folder of a run."""
    return folder / "decode" / f"{subset}-layer{layer}"


def aligned(folder: Path, layer: int) -> Path:
    """Where the comparison of spikes lies, below the folder of a run."""
    return folder / "align" / f"layer{layer}"


def _config(folder: str, name: str) -> tuple[str, ...]:
    return "--config-dir", str(REPOSITORY / "config" / folder), "--config-name", name


def _folder(out: Path, grid: Mapping[str, Any], arm: str, seed: int) -> Path:
    return out / grid["corpus"] / arm / f"seed{seed}"


def shown(command: Sequence[str]) -> str:
    """A command for a shell, from the repository's folder."""
    program = "python" if command[0] == sys.executable else command[0]
    return " ".join([shlex.quote(program), *map(_shown_part, command[1:])])


def _shown_part(part: str) -> str:
    if part.startswith("common.user_dir="):  # fairseq looks for a relative one in the run's folder
        return 'common.user_dir="$(python -m fairseq_skd)"'
    return shlex.quote(part).replace(f"{REPOSITORY}/", "")
