"""The demo's steps as data: which command each one runs, and what it leaves behind."""

import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import fairseq_skd
from fairseq_skd.errors import UserError
from fairseq_skd.overrides import hydra_overrides

LAYERS = 4  # of config/pretrain/hubert_tiny.yaml
STUDENT_LAYER = 2
CLUSTERS = 50
PRETRAINING_UPDATES = 1000
FINE_TUNING_UPDATES = 1600

LOG_INTERVAL = 10  # updates
DROPOUTS = ("dropout_input", "final_dropout", "dropout", "attention_dropout", "activation_dropout")
# Where the demo departs from config/finetune/hubert_mini.yaml: a smaller encoder and corpus, a shorter run.
# Small batches without dropout give more updates in the same time: the WER ends level, whatever the machine.
FINE_TUNING_SETTINGS = {
    "model.student_layers": f"[{STUDENT_LAYER}]",
    **{f"model.{name}": 0 for name in DROPOUTS},
    "dataset.max_tokens": 160_000,
    "dataset.validate_interval": 2,
    "checkpoint.save_interval": 2,
    "optimization.lr": "[3e-3]",
}

TRAINER = "fairseq-hydra-train"


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: short, a file name of its log and its marker.
        title: what it does, for the reader.
        command: program and arguments.
        output: what it writes, a file or folder of its own.
        updates: how many it trains for; 0 if it trains nothing.
    """

    name: str
    title: str
    command: tuple[str, ...]
    output: Path
    updates: int = 0

    def shown(self) -> str:
        """The command, quoted for a shell in which the environment is active."""
        program = {sys.executable: "python"}.get(self.command[0], Path(self.command[0]).name)
        return shlex.join((program, *self.command[1:]))


@dataclass(frozen=True)
class Layout:
    """Where things are in the demo's folder ``out``, which is absolute."""

    out: Path

    @property
    def corpus(self) -> Path:
        """Audio and table."""
        return self.out / "corpus"

    @property
    def manifest(self) -> Path:
        """fairseq's manifests."""
        return self.out / "manifest"

    @property
    def labels(self) -> Path:
        """Frame labels for pretraining."""
        return self.out / "labels"

    @property
    def pretrained(self) -> Path:
        """The encoder that fine-tuning starts from."""
        return self.out / "pretrain" / "checkpoints" / "checkpoint_last.pt"

    @property
    def fine_tuned(self) -> Path:
        """The checkpoint that is decoded."""
        return self.out / "finetune" / "checkpoints" / "checkpoint_best.pt"

    @property
    def alignment(self) -> Path:
        """Where teacher and student spike in the test set."""
        return self.out / "align"

    @property
    def report(self) -> Path:
        """All of it on one page."""
        return self.out / "report.html"

    def decoded(self, who: str) -> Path:
        """Results of the test set, ``who`` being teacher or student."""
        return self.out / f"decode-{who}"


def demo_steps(at: Layout, configs: Path, trainer: Path) -> list[Step]:
    """All steps in order.

    Args:
        at: where each one reads and writes.
        configs: folder with ``pretrain/``, ``finetune/`` and ``decode/``.
        trainer: the program ``fairseq-hydra-train``.
    """
    return [*_data_steps(at), *_training_steps(at, configs, trainer), *_test_steps(at, configs)]


def _data_steps(at: Layout) -> list[Step]:
    table, audio = at.corpus / "demo.tsv", at.corpus / "audio"
    return [
        Step(
            "corpus",
            "Speak a small corpus with espeak-ng",
            _module("demo.corpus", "--out", at.corpus),
            at.corpus,
        ),
        Step(
            "manifest",
            "Check its table and write fairseq's manifests",
            _module("manifest", "table", table, "--audio-root", audio, "--out", at.manifest),
            at.manifest,
        ),
        Step(
            "labels",
            f"Label its frames: {CLUSTERS} clusters of MFCCs",
            _module("demo.labels", at.manifest, "--out", at.labels, "--clusters", CLUSTERS),
            at.labels,
        ),
    ]


def _training_steps(at: Layout, configs: Path, trainer: Path) -> list[Step]:
    def command(kind: str, config: str, updates: int, settings: Mapping[str, object]) -> tuple[str, ...]:
        overrides = {
            "common.user_dir": Path(fairseq_skd.__file__).resolve().parent,
            "common.cpu": "true",  # the same everywhere
            "task.data": at.manifest,
            **settings,
            "optimization.max_update": updates,
            "common.log_interval": LOG_INTERVAL,
            "hydra.run.dir": at.out / kind,
        }
        options = ("--config-dir", str(configs / kind), "--config-name", config)
        return (str(trainer), *options, *hydra_overrides(overrides))

    fine_tuning = {"model.w2v_path": at.pretrained, **FINE_TUNING_SETTINGS}
    return [
        Step(
            "pretrain",
            f"Pretrain a HuBERT of {LAYERS} layers to predict the labels",
            command("pretrain", "hubert_tiny", PRETRAINING_UPDATES, {"task.label_dir": at.labels}),
            at.out / "pretrain",
            PRETRAINING_UPDATES,
        ),
        Step(
            "finetune",
            f"Fine-tune it with self-knowledge distillation: its first {STUDENT_LAYER} layers are the student",
            command("finetune", "hubert_mini", FINE_TUNING_UPDATES, fine_tuning),
            at.out / "finetune",
            FINE_TUNING_UPDATES,
        ),
    ]


def _test_steps(at: Layout, configs: Path) -> list[Step]:
    common = {"task.data": at.manifest, "common_eval.path": at.fine_tuned, "common.cpu": "true"}

    def decode(who: str, layer: int) -> tuple[str, ...]:
        chosen = {"dataset.gen_subset": "test", "decoding.layer": layer, "common_eval.results_path": at.decoded(who)}
        overrides = hydra_overrides({**common, **chosen})
        return _module("infer", "--config-dir", configs / "decode", "--config-name", "viterbi", *overrides)

    compared = {**common, "dataset.gen_subset": "test", "common_eval.results_path": at.alignment}
    options = ("--config-dir", configs / "align", "--config-name", "align")
    return [
        Step(
            "decode-teacher",
            f"Decode the test set with the teacher, all {LAYERS} layers",
            decode("teacher", LAYERS),
            at.decoded("teacher"),
        ),
        Step(
            "decode-student",
            f"Decode the test set with the student, {STUDENT_LAYER} layers",
            decode("student", STUDENT_LAYER),
            at.decoded("student"),
        ),
        Step(
            "align",
            "Compare where teacher and student spike",
            _module("align", *options, *hydra_overrides(compared)),
            at.alignment,
        ),
        Step(
            "report",
            "Put curves, tables, spikes and some utterances to listen to on one page",
            _module("report", at.out, "--out", at.report),
            at.report,
        ),
    ]


def _module(name: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-m", f"fairseq_skd.{name}", *map(str, arguments))


def find_trainer() -> Path:
    """``fairseq-hydra-train`` of the environment that runs this.

    Raises:
        UserError: if it is not installed.
    """
    beside = Path(sys.executable).parent / TRAINER  # not resolved: a venv's interpreter is a link out of it
    found = str(beside) if beside.is_file() else shutil.which(TRAINER)
    if found is None:
        raise UserError(f"{TRAINER} is not beside {sys.executable}: install fairseq into this environment")
    return Path(found)


def find_configs() -> Path:
    """The checkout's ``config/``.

    Raises:
        UserError: if the package was installed without its checkout.
    """
    configs = Path(fairseq_skd.__file__).resolve().parent.parent / "config"
    if not configs.is_dir():
        raise UserError(f"{configs} does not exist: run the demo from a checkout (pip install --editable)")
    return configs
