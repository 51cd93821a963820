"""The runs of a grid and their commands: training, then decoding and comparing spikes."""

import itertools
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from experiments.grid import REPOSITORY, TEACHER, Grid
from fairseq_skd.cli import hydra_overrides
from fairseq_skd.errors import UserError

CHECKPOINT = Path("checkpoints", "checkpoint_best.pt")  # in the folder of a run
SUMMARY, ANALYSIS = "summary.json", "align.json"  # last file that infer and align write
# Training settings that decoding needs too.
_BOTH = ("task.data", "task.label_dir", "common.cpu")


@dataclass(frozen=True)
class Data:
    """Files that a run trains and decodes on.

    Attributes:
        manifests: folder of <split>.tsv.
        labels: folder of <split>.<extension> and of the dictionaries.
        splits: names of the training and the validation split.
        extensions: extensions of the label files.
    """

    manifests: Path
    labels: Path
    splits: tuple[str, ...]
    extensions: tuple[str, ...]

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> "Data":
        """Find the files from training settings, ``task.data`` among them."""
        manifests = Path(str(settings["task.data"]))
        splits = tuple(str(settings.get(f"dataset.{split}_subset", split)) for split in ("train", "valid"))
        labels = yaml.safe_load(str(settings.get("task.labels", "ltr")))
        extensions = tuple(map(str, labels)) if isinstance(labels, list) else (str(labels),)
        return cls(manifests, Path(str(settings.get("task.label_dir", manifests))), splits, extensions)

    def files(self, *splits: str) -> list[Path]:
        """List manifests and labels of some splits."""
        labels = [self.labels / f"{split}.{extension}" for split in splits for extension in self.extensions]
        return [self.manifests / f"{split}.tsv" for split in splits] + labels

    def training_files(self) -> list[Path]:
        """List all files that training reads, except audio."""
        return self.files(*self.splits) + [self.labels / f"dict.{extension}.txt" for extension in self.extensions]


@dataclass(frozen=True)
class Step:
    """A command after the training.

    Attributes:
        result: the last file that the command writes.
        subset: subset that it reads.
        exit: layer count of the model's exit.
        command: ``fairseq_skd.infer`` or ``fairseq_skd.align`` with arguments.
        log: file of its output, named after the step.
    """

    result: Path
    subset: str
    exit: int
    command: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class Run:
    """One training and the steps after it.

    Attributes:
        arm: name in the grid.
        seed: seed of fairseq and of the masks.
        folder: the run's own folder, with checkpoints, logs, decoded texts and result.
        exits: layer counts that are decoded.
        data: files for training and decoding.
        encoder: pretrained encoder: a file, or a folder in transformers' format.
        train: the training command.
        decode: one step per subset and exit.
        align: one step per student exit, on the last subset, to compare spikes with the teacher:
            the full model of the same run, or the model of the arm that the run needs.
        needs: arm whose run of the same seed must be done first.
    """

    corpus: str
    arm: str
    seed: int
    folder: Path
    exits: tuple[int, ...]
    data: Data
    encoder: Path
    train: tuple[str, ...]
    decode: tuple[Step, ...]
    align: tuple[Step, ...]
    needs: str | None = None

    @property
    def name(self) -> str:
        """Corpus, arm and seed, for messages."""
        return f"{self.corpus} {self.arm} seed {self.seed}"

    @property
    def checkpoint(self) -> Path:
        """The checkpoint to decode: the best on the validation set."""
        return self.folder / CHECKPOINT

    @property
    def teacher(self) -> Path | None:
        """Folder of the run that this run needs."""
        return self.folder.parents[1] / self.needs / self.folder.name if self.needs else None


def runs_of(
    grid: Grid,
    out: Path,
    given: Mapping[str, object],
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Run]:
    """List the runs of a grid, by seed, each arm after the arm that it needs.

    Args:
        grid: a grid from :func:`~experiments.grid.read_grid`.
        out: absolute path of the folder of all runs.
        given: settings of every training, ``task.data`` among them. Data paths and ``common.cpu``
            also hold for the steps.
        arms: arms to run; None: all.
        seeds: seeds to run; None: the seeds of grid and arms.

    Raises:
        UserError: the grid lacks an arm.
    """
    for name in arms or ():
        if name not in grid.arms:
            raise UserError(f"--arms {name}: the grid has no such arm, give some of {', '.join(grid.arms)}")
    asked = {name: seeds or arm.seeds for name, arm in grid.arms.items() if not arms or name in arms}
    every = dict.fromkeys(itertools.chain(seeds or grid.seeds, *asked.values()))
    return [_run(grid, out, given, name, seed) for seed in every for name in asked if seed in asked[name]]


def _run(grid: Grid, out: Path, given: Mapping[str, object], name: str, seed: int) -> Run:
    arm, folder = grid.arms[name], out / grid.corpus / name / f"seed{seed}"
    teacher = out / grid.corpus / arm.needs / f"seed{seed}" / CHECKPOINT if arm.needs else None
    settings = {
        "common.user_dir": REPOSITORY / "fairseq_skd",
        **grid.common,
        **{key: teacher if value == TEACHER else value for key, value in arm.set.items()},
        "common.seed": seed,
        "checkpoint.save_dir": folder / CHECKPOINT.parent,
        "hydra.run.dir": folder,
        **given,
    }

    def step(program: str, config: str, place: str, subset: str, layer: int, own: Mapping[str, object]) -> Step:
        chosen = {
            **grid.decode,
            "common_eval.path": folder / CHECKPOINT,
            "dataset.gen_subset": subset,
            **own,
            "common_eval.results_path": folder / place,
            **{key: given[key] for key in _BOTH if key in given},
        }
        result = folder / place / (SUMMARY if program == "infer" else ANALYSIS)
        log = folder / f"{place.replace('/', '-')}.log"
        return Step(result, subset, layer, _command(f"fairseq_skd.{program}", config, chosen), log)

    decode = tuple(
        step("infer", "decode/viterbi", f"decode/{subset}-layer{layer}", subset, layer, {"decoding.layer": layer})
        for subset, layer in itertools.product(grid.subsets, arm.exits)
    )
    taught = {"align.teacher_path": teacher} if teacher else {}
    align = tuple(
        step("align", "align/align", f"align/layer{layer}", grid.subsets[-1], layer, {"align.layer": layer, **taught})
        for layer in arm.aligned
    )
    train = _command("fairseq_cli.hydra_train", f"finetune/{grid.config}", settings)
    data, encoder = Data.of(settings), Path(str(settings["model.w2v_path"]))
    return Run(grid.corpus, name, seed, folder, arm.exits, data, encoder, train, decode, align, arm.needs)


def _command(module: str, config: str, settings: Mapping[str, object]) -> tuple[str, ...]:
    folder, _, name = config.partition("/")
    where = ("--config-dir", str(REPOSITORY / "config" / folder), "--config-name", name)
    return (sys.executable, "-m", module, *where, *hydra_overrides(settings))


def shown(command: Sequence[str]) -> str:
    """Quote a command for a shell in the repository's folder."""
    program = "python" if command[0] == sys.executable else command[0]
    return " ".join([shlex.quote(program), *map(_shown_part, command[1:])])


def _shown_part(part: str) -> str:
    if part.startswith("common.user_dir="):  # a relative path would be looked up in the run's folder
        return 'common.user_dir="$(python -m fairseq_skd)"'
    return shlex.quote(part).replace(f"{REPOSITORY}/", "")
