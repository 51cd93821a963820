"""Write the recipes of config/finetune/ and the table of them in docs/training.md.

python config/generate.py

A recipe is hubert_mini.yaml with the values of a file that fairseq ships. A new encoder is a line
in ENCODERS. CHANGES lists the departures from a published file with their reasons. DERIVED says why
a recipe takes a file that was made for another encoder. tests/test_recipes.py compares all of it
with the files of the installed fairseq.
"""

import itertools
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_skd.objective.schedule import AlphaSchedule

HERE = Path(__file__).resolve().parent
AMOUNTS = ("10h", "100h", "960h")
_BEGIN, _END = "<!-- written by generate.py -->\n", "<!-- end -->\n"

# Files in fairseq's examples/ and their values. lr is the peak; masks span 10 frames, 64 channels.
KEYS = (
    *("optimization.max_update", "optimization.lr", "model.freeze_finetune_updates"),
    *("model.mask_prob", "model.mask_channel_prob", "model.layerdrop"),
    *("dataset.max_tokens", "distributed_training.distributed_world_size", "optimization.update_freq"),
)
WAV2VEC, HUBERT = "wav2vec/config/finetuning", "hubert/config/finetune"
PUBLISHED = {
    #                           updates  lr      frozen  masks       LayerDrop samples  GPUs  freq
    f"{WAV2VEC}/base_10h.yaml": (20_000, [5e-5], 10_000, 0.65, 0.5, 0.05, 3_200_000, 2, [4]),
    f"{WAV2VEC}/base_100h.yaml": (80_000, [3e-5], 0, 0.65, 0.5, 0.1, 3_200_000, 2, [4]),
    f"{WAV2VEC}/base_960h.yaml": (320_000, [1e-4], 0, 0.5, 0.1, 0.1, 3_200_000, 8, [1]),
    f"{WAV2VEC}/vox_10h.yaml": (20_000, [1e-4], 10_000, 0.75, 0.25, 0.1, 1_280_000, 4, [5]),
    f"{WAV2VEC}/vox_100h.yaml": (80_000, [3e-5], 10_000, 0.5, 0.5, 0.1, 1_280_000, 4, [5]),
    f"{WAV2VEC}/vox_960h.yaml": (320_000, [3e-5], 10_000, 0.5, 0.25, 0.1, 1_280_000, 24, [1]),
    f"{HUBERT}/base_10h.yaml": (25_000, [2e-5], 10_000, 0.75, 0.5, 0.1, 3_200_000, 1, [1]),
}
# Values of all published files that differ from hubert_mini.yaml.
SHARED = {
    "common.fp16": True,
    "common.log_interval": 200,
    "checkpoint.save_interval": 1,
    "dataset.num_workers": 6,
    "dataset.validate_interval": 1,
    "optimization.clip_norm": 0.0,
    **{f"model.{key}": 0.0 for key in ("dropout_input", "final_dropout", "dropout", "attention_dropout")},
    "model.activation_dropout": 0.1,
    "model.mask_channel_length": 64,
}


@dataclass(frozen=True)
class Encoder:
    """A pretrained encoder.

    Attributes:
        title: its name in the head of a recipe.
        checkpoint: file name of its checkpoint.
        shape: the wav2vec 2.0 model with the same shape, ``base`` or ``vox``.
        layers: number of layers.
    """

    title: str
    checkpoint: str
    shape: str
    layers: int


ENCODERS = {
    "hubert_base": Encoder("HuBERT base", "hubert_base_ls960.pt", "base", 12),
    "hubert_large": Encoder("HuBERT large", "hubert_large_ll60k.pt", "vox", 24),
    "wavlm_base_plus": Encoder("WavLM base+", "WavLM-Base+.pt", "base", 12),
    "wavlm_large": Encoder("WavLM large", "WavLM-Large.pt", "vox", 24),
    "wav2vec_base": Encoder("wav2vec 2.0 base", "wav2vec_small.pt", "base", 12),
}
BASE = ("hubert_base", "wavlm_base_plus")  # encoders that use HuBERT's recipe for 10 hours

# The task section of wav2vec 2.0 recipes.
_PADS = "wav2vec 2.0's task; it always pads. Its eval_ keys are for seq2seq"
AUDIO_FINETUNING = f"""\
task:
  _name: audio_finetuning  # {_PADS}
  data: ???  # folder with <split>.tsv, <split>.ltr and dict.ltr.txt
  labels: ltr
  sample_rate: 16000
  normalize: false  # as in pretraining
  enable_padding: false  # batches with labels are always padded
  max_sample_size: null
  min_sample_size: null
  num_batch_buckets: 0
  binarized_dataset: false
  text_compression_level: none
  autoregressive: false
"""


@dataclass(frozen=True)
class Change:
    """A departure from a published file: its subject, the values, and the reason."""

    what: str
    values: dict[str, Any]
    why: str


def _gpus(number: int, why: str) -> Change:
    key = "distributed_training.distributed_world_size"
    return Change("GPUs", {key: number, "optimization.update_freq": [1]}, why)


# Encoders, amounts, and how their recipe departs from the published file.
CHANGES: list[tuple[tuple[str, ...], tuple[str, ...], Change]] = [
    (BASE, ("100h",), _gpus(8, "the same batch on 8 x 1 as on 2 x 4, as in HuBERT's paper")),
    (BASE, ("10h",), _gpus(8, "as in HuBERT's paper; base_10h leaves the number to its launcher")),
    (
        ("wavlm_large",),
        ("10h", "100h"),
        _gpus(24, "24 of 80 s each, as an author of WavLM says (issue 1742 of microsoft/unilm)"),
    ),
    (
        BASE,
        ("10h",),
        Change(
            "phase_ratio",
            {"lr_scheduler.phase_ratio": [0.1, 0.4, 0.5]},
            "as in wav2vec 2.0's recipes and Speech2C's base_10h.yaml (microsoft/SpeechT5); base_10h's warm-up "
            "of 8,000 updates and decay of 72,000 exceed its run of 25,000",
        ),
    ),
    (
        BASE,
        ("100h",),
        Change(
            "freeze_finetune_updates",
            {"model.freeze_finetune_updates": 10_000},
            "only the heads train first, as in re-implementations of the SKD paper with HuBERT",
        ),
    ),
    (
        tuple(ENCODERS),
        ("10h",),
        Change(
            "validation and checkpoints",
            {
                "checkpoint.save_interval": 50,
                "checkpoint.save_interval_updates": 500,
                "checkpoint.keep_interval_updates": 1,
                "dataset.validate_interval": 50,
                "dataset.validate_interval_updates": 500,
                "dataset.validate_after_updates": "${model.freeze_finetune_updates}",
            },
            "every 500 updates, because epochs are short: 2 updates for 1 h of speech, 20 for 10 h",
        ),
    ),
]
_SWEEP = (
    "Derived: HuBERT's paper gives only the range of its sweep (peak rates from 1e-5 to 1e-4, updates, frozen updates, "
    "masks). wav2vec 2.0's {} has the same shape and pretraining data."
)
_BATCH = "HuBERT's paper uses 8 GPUs with 80 s each; this recipe keeps the published rate with its batch size."
_WAVLM = (
    "Derived as for HuBERT: WavLM's {} has the same shape. For fine-tuning, WavLM's first author points to fairseq's "
    "examples/hubert (issue 27 of microsoft/UniSpeech)."
)
_SCRIPT = (
    "UniSpeech-SAT's 100h_finetune_base.sh (microsoft/UniSpeech) has the same shape and values, except that it freezes "
    "nothing and sets the dropouts to 0.1."
)
# Encoders, amounts, and why they use a recipe made for another encoder.
DERIVED: list[tuple[tuple[str, ...], tuple[str, ...], str]] = [
    (("hubert_base",), ("100h", "960h"), _SWEEP.format("base model")),
    (("hubert_large",), AMOUNTS, _SWEEP.format("large model of Libri-Light")),
    (("hubert_large",), AMOUNTS, _BATCH),
    (("wavlm_base_plus",), AMOUNTS, _WAVLM.format("base model")),
    (("wavlm_large",), AMOUNTS, _WAVLM.format("large model")),
    (BASE, ("100h",), _SCRIPT),
]
WAVLM_MINI = """\
# Self-knowledge distillation with a small WavLM encoder. config/generate.py writes this file from
# hubert_mini.yaml, which has the same values: change that file instead.
# experiments/wavlm_from_hubert.py turns a small HuBERT into a small WavLM.
#
#   python -m fairseq_skd.train wavlm_mini task.data=/data/manifests model.w2v_path=/models/wavlm_mini.pt \\
#     checkpoint.save_dir=/runs/skd
"""


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune an encoder on an amount of speech.

    Attributes:
        encoder: a key of ENCODERS.
        amount: one of AMOUNTS.
        source: a key of PUBLISHED.
        derived: why it takes this file, if the file was made for another encoder; else empty.
        changes: the departures from the file.
    """

    encoder: str
    amount: str
    source: str
    derived: str
    changes: list[Change]

    @classmethod
    def of(cls, encoder: str, amount: str) -> "Recipe":
        """Build the recipe of a key of ENCODERS and one of AMOUNTS."""
        source = f"{WAV2VEC}/{ENCODERS[encoder].shape}_{amount}.yaml"
        if encoder in BASE and amount == "10h":
            source = f"{HUBERT}/base_10h.yaml"
        derived = [text for encoders, amounts, text in DERIVED if encoder in encoders and amount in amounts]
        changes = [change for encoders, amounts, change in CHANGES if encoder in encoders and amount in amounts]
        return cls(encoder, amount, source, " ".join(derived), changes)

    @property
    def name(self) -> str:
        """Name of the YAML, without extension."""
        return f"{self.encoder}_{self.amount}"

    @property
    def values(self) -> dict[str, Any]:
        """``group.key`` -> value, for values that differ from hubert_mini.yaml."""
        published = dict(zip(KEYS, PUBLISHED[self.source], strict=True))
        layers, large = ENCODERS[self.encoder].layers, ENCODERS[self.encoder].shape == "vox"
        own = {"task.normalize": large, "model.student_layers": [layers // 2]}
        return {**SHARED, **own, **published, **{k: v for change in self.changes for k, v in change.values.items()}}

    @property
    def gpus(self) -> int:
        """Number of GPUs."""
        return int(self.values["distributed_training.distributed_world_size"])

    @property
    def repeat(self) -> int:
        """Batches per GPU and update."""
        return int(self.values["optimization.update_freq"][0])

    @property
    def frozen(self) -> str:
        """Share of the updates in which only the heads train."""
        return f"{100 * self.values['model.freeze_finetune_updates'] / self.values['optimization.max_update']:.3g} %"

    def text(self, mini: str) -> str:
        """Write the YAML.

        Args:
            mini: the text of hubert_mini.yaml.
        """
        frozen, updates = self.values["model.freeze_finetune_updates"], self.values["optimization.max_update"]
        trained = "the encoder trains from the start"
        if frozen:
            alpha = AlphaSchedule(max_update=updates)(frozen)
            trained = f"only heads train in the first {self.frozen}; alpha is then {alpha:.2f}"
        text = _with_values(
            mini,
            self.values,
            {
                "common.fp16": "false on the CPU",
                "distributed_training.distributed_world_size": (
                    f"GPUs; with only one: 1, and optimization.update_freq=[{self.gpus * self.repeat}]"
                ),
                "task._name": "HuBERT's task for fine-tuning too",
                "model.freeze_finetune_updates": trained,
                "model.blank_weight": "",
            },
        )
        if self.encoder == "wav2vec_base":
            text = re.sub(r"^task:\n(  .*\n)+", AUDIO_FINETUNING, text, flags=re.MULTILINE)
        return _with_head(text, self._head())

    def _head(self) -> str:
        hours, encoder = self.amount.removesuffix("h"), ENCODERS[self.encoder]
        lines = [
            f"{encoder.title} on {hours} hours, with self-knowledge distillation. Written by config/generate.py: "
            "change that file instead.",
            f"The values are from fairseq's examples/{self.source}. {self.derived}".rstrip(),
            *(f"- {change.what}: {change.why}." for change in self.changes),
            f"An update has {self.gpus} GPUs x {self.repeat} batches of up to "
            f"{self.values['dataset.max_tokens'] / 1e6:g}M samples. With another number of GPUs, keep "
            f"distributed_world_size x update_freq at {self.gpus * self.repeat}.",
        ]
        wrapped = (textwrap.wrap(line, 98, subsequent_indent="  " * line.startswith("-")) for line in lines)
        command = [
            f"  python -m fairseq_skd.train {self.name} task.data=/data/manifests \\",
            f"    model.w2v_path=/models/{encoder.checkpoint} checkpoint.save_dir=/runs/skd",
        ]
        comment = [*itertools.chain(*wrapped), "", *command]
        return "".join(f"{f'# {line}'.rstrip()}\n" for line in comment)

    def row(self) -> str:
        """Make its row of the table, without the name."""
        values = self.values
        cells = (
            f"`{re.sub('config/finetun(e|ing)/', '', self.source)}`",
            f"{values['optimization.max_update'] // 1000}k",
            f"{values['optimization.lr'][0]:.0e}".replace("e-0", "e-"),
            f"{frozen // 1000}k ({self.frozen})" if (frozen := values["model.freeze_finetune_updates"]) else "0",
            f"{values['model.mask_prob']}, {values['model.mask_channel_prob']}",
            f"{self.gpus} x {self.repeat} x {values['dataset.max_tokens'] / 1e6:g}M",
        )
        return f"{' | '.join(cells)} |"


RECIPES = [Recipe.of(encoder, amount) for amount in AMOUNTS for encoder in ENCODERS]


def _with_values(text: str, values: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """Replace values and comments of a YAML, both given as ``group.key`` -> text."""
    lines, group = [], ""
    for line in text.splitlines(keepends=True):
        found = re.fullmatch(r"(?P<indent> *)(?P<key>\w+):(?P<value>(?: .*?)??)(?:  # (?P<comment>.*))?\n", line)
        if found and not found["indent"]:
            group = found["key"]
        elif found:
            key = f"{group}.{found['key']}"
            value = _text(values[key]) if key in values else found["value"].strip()
            comment = comments.get(key, found["comment"])
            line = f"  {found['key']}: {value}{f'  # {comment}' if comment else ''}\n"
        lines.append(line)
    return "".join(lines)


def _text(value: Any) -> str:
    """Format a value for YAML; rates keep a point, because some readers take 3e-05 for a string."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:.1e}" if isinstance(value, float) and 0 < value < 1e-3 else str(value)


def _with_head(text: str, head: str) -> str:
    return f"# @package _group_\n\n{head}\n{text[text.index('common:') :]}"


def table() -> str:
    """Format the recipes as a Markdown table; encoders with equal values share a row."""
    rows: dict[str, list[str]] = {}
    for recipe in RECIPES:
        rows.setdefault(recipe.row(), []).append(f"`{recipe.name}`")
    lines = [
        "| YAML | values of fairseq's | updates | lr | heads alone | masks | batch |",
        "|---|---|---|---|---|---|---|",
        *(f"| {', '.join(names)} | {row}" for row, names in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def files() -> dict[Path, str]:
    """Return all generated files: path -> text."""
    folder, page = HERE / "finetune", HERE.parent / "docs" / "training.md"
    mini = (folder / "hubert_mini.yaml").read_text(encoding="utf-8")
    before, rest = page.read_text(encoding="utf-8").split(_BEGIN)
    _, after = rest.split(_END)
    return {
        **{folder / f"{recipe.name}.yaml": recipe.text(mini) for recipe in RECIPES},
        folder / "wavlm_mini.yaml": _with_head(mini, WAVLM_MINI),
        page: f"{before}{_BEGIN}{table()}{_END}{after}",
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
