"""Write the recipes of config/finetune/ and the table of them in docs/training.md.

python config/generate.py

A recipe is hubert_mini.yaml with the values of a file that fairseq ships. A new encoder is a line of ENCODERS. What
departs from a published file stands in CHANGES with its reason, and why a file made for another encoder is taken stands
in DERIVED. tests/test_recipes.py compares all of it with the files in the installed fairseq.
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

# The files below fairseq's examples/, and what they set. lr is a peak; masks cover spans of 10 frames and 64 channels.
KEYS = (
    *("optimization.max_update", "optimization.lr", "model.freeze_finetune_updates"),
    *("model.mask_prob", "model.mask_channel_prob", "model.layerdrop"),
    *("dataset.max_tokens", "distributed_training.distributed_world_size", "optimization.update_freq"),
)
WAV2VEC, HUBERT = "wav2vec/config/finetuning", "hubert/config/finetune"
PUBLISHED = {
    #                           updates  lr      frozen  masks       LayerDrop samples  GPUs  update_freq
    f"{WAV2VEC}/base_10h.yaml": (20_000, [5e-5], 10_000, 0.65, 0.5, 0.05, 3_200_000, 2, [4]),
    f"{WAV2VEC}/base_100h.yaml": (80_000, [3e-5], 0, 0.65, 0.5, 0.1, 3_200_000, 2, [4]),
    f"{WAV2VEC}/base_960h.yaml": (320_000, [1e-4], 0, 0.5, 0.1, 0.1, 3_200_000, 8, [1]),
    f"{WAV2VEC}/vox_10h.yaml": (20_000, [1e-4], 10_000, 0.75, 0.25, 0.1, 1_280_000, 4, [5]),
    f"{WAV2VEC}/vox_100h.yaml": (80_000, [3e-5], 10_000, 0.5, 0.5, 0.1, 1_280_000, 4, [5]),
    f"{WAV2VEC}/vox_960h.yaml": (320_000, [3e-5], 10_000, 0.5, 0.25, 0.1, 1_280_000, 24, [1]),
    f"{HUBERT}/base_10h.yaml": (25_000, [2e-5], 10_000, 0.75, 0.5, 0.1, 3_200_000, 1, [1]),
}
# What all of them have and hubert_mini.yaml has not.
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
    """A pretrained encoder: words for it, its checkpoint's file, wav2vec 2.0's model of the same shape, its layers."""

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
BASE = ("hubert_base", "wavlm_base_plus")  # those that HuBERT's 10 hours are taken for

# What wav2vec 2.0 has instead of hubert_mini.yaml's section.
_PADS = "the task of wav2vec 2.0; it pads by itself. Its eval_ keys are for sequence-to-sequence only"
AUDIO_FINETUNING = f"""\
task:
  _name: audio_finetuning  # {_PADS}
  data: ???  # folder of <split>.tsv, <split>.ltr and dict.ltr.txt
  labels: ltr
  sample_rate: 16000
  normalize: false  # as in pretraining
  enable_padding: false  # where there are labels, batches are padded anyway
  max_sample_size: null
  min_sample_size: null
  num_batch_buckets: 0
  binarized_dataset: false
  text_compression_level: none
  autoregressive: false
"""


@dataclass(frozen=True)
class Change:
    """Values that are not the published file's: what they are about, the values, and why."""

    what: str
    values: dict[str, Any]
    why: str


def _gpus(number: int, why: str) -> Change:
    key = "distributed_training.distributed_world_size"
    return Change("GPUs", {key: number, "optimization.update_freq": [1]}, why)


# Encoders, amounts, and what of the recipe is not theirs.
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
            "as in wav2vec 2.0's recipes and Speech2C's base_10h.yaml (microsoft/SpeechT5); HuBERT's own "
            "warm-up of 8,000 and decay of 72,000 updates exceed its 25,000",
        ),
    ),
    (
        BASE,
        ("100h",),
        Change(
            "freeze_finetune_updates",
            {"model.freeze_finetune_updates": 10_000},
            "the heads alone train first, as in re-implementations of the SKD paper with HuBERT",
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
            "every 500 updates; an epoch of 1 h has 2 of them, of 10 h 20",
        ),
    ),
]
_SWEEP = (
    "Derived: HuBERT's paper gives no values but the range of its sweep (peak rates of 1e-5 to 1e-4, updates, frozen "
    "updates, masks); wav2vec 2.0's {} has the same shape and pretraining data."
)
_BATCH = "HuBERT's paper has 8 GPUs with 80 s each; rate and batch are kept together here."
_WAVLM = (
    "Derived as for HuBERT: WavLM's {} has the same shape, and for fine-tuning its first author points to fairseq's "
    "examples/hubert (issue 27 of microsoft/UniSpeech)."
)
_SCRIPT = (
    "UniSpeech-SAT's 100h_finetune_base.sh (microsoft/UniSpeech), for the same shape, agrees, except that it freezes "
    "nothing and sets the dropouts to 0.1."
)
# Encoders, amounts, and why a recipe that was made for another encoder is theirs.
DERIVED: list[tuple[tuple[str, ...], tuple[str, ...], str]] = [
    (("hubert_base",), ("100h", "960h"), _SWEEP.format("base model")),
    (("hubert_large",), AMOUNTS, _SWEEP.format("large model of Libri-Light")),
    (("hubert_large",), AMOUNTS, _BATCH),
    (("wavlm_base_plus",), AMOUNTS, _WAVLM.format("base model")),
    (("wavlm_large",), AMOUNTS, _WAVLM.format("large model")),
    (BASE, ("100h",), _SCRIPT),
]
WAVLM_MINI = """\
# Self-knowledge distillation on a small WavLM encoder. Written by config/generate.py from hubert_mini.yaml, which has
# the same values: change that instead. Without a small WavLM, experiments/wavlm_from_hubert.py makes one of a HuBERT.
#
#   python -m fairseq_skd.train wavlm_mini task.data=/data/manifests model.w2v_path=/models/wavlm_mini.pt \\
#     checkpoint.save_dir=/runs/skd
"""


@dataclass(frozen=True)
class Recipe:
    """How an encoder is fine-tuned on an amount of speech.

    Attributes:
        source: one of PUBLISHED.
        derived: why it is taken, where it was made for another encoder.
        changes: the departures from it.
    """

    encoder: str
    amount: str
    source: str
    derived: str
    changes: list[Change]

    @classmethod
    def of(cls, encoder: str, amount: str) -> "Recipe":
        """A key of ENCODERS and one of AMOUNTS."""
        source = f"{WAV2VEC}/{ENCODERS[encoder].shape}_{amount}.yaml"
        if encoder in BASE and amount == "10h":
            source = f"{HUBERT}/base_10h.yaml"
        derived = [text for encoders, amounts, text in DERIVED if encoder in encoders and amount in amounts]
        changes = [change for encoders, amounts, change in CHANGES if encoder in encoders and amount in amounts]
        return cls(encoder, amount, source, " ".join(derived), changes)

    @property
    def name(self) -> str:
        """Of the YAML."""
        return f"{self.encoder}_{self.amount}"

    @property
    def values(self) -> dict[str, Any]:
        """group.key -> value, where it is not hubert_mini.yaml's."""
        published = dict(zip(KEYS, PUBLISHED[self.source], strict=True))
        layers, large = ENCODERS[self.encoder].layers, ENCODERS[self.encoder].shape == "vox"
        own = {"task.normalize": large, "model.student_layers": [layers // 2]}
        return {**SHARED, **own, **published, **{k: v for change in self.changes for k, v in change.values.items()}}

    @property
    def gpus(self) -> int:
        """GPUs of an update."""
        return int(self.values["distributed_training.distributed_world_size"])

    @property
    def repeat(self) -> int:
        """Batches of one GPU in an update."""
        return int(self.values["optimization.update_freq"][0])

    @property
    def frozen(self) -> str:
        """The share of the updates in which the heads train alone."""
        return f"{100 * self.values['model.freeze_finetune_updates'] / self.values['optimization.max_update']:.3g} %"

    def text(self, mini: str) -> str:
        """The YAML.

        Args:
            mini: the text of hubert_mini.yaml.
        """
        frozen, updates = self.values["model.freeze_finetune_updates"], self.values["optimization.max_update"]
        trained = "the encoder trains from the start"
        if frozen:
            alpha = AlphaSchedule(max_update=updates)(frozen)
            trained = f"{self.frozen} of the updates train the heads alone; alpha is {alpha:.2f} by then"
        text = _with_values(
            mini,
            self.values,
            {
                "common.fp16": "false on the CPU",
                "distributed_training.distributed_world_size": (
                    f"GPUs; with only one: 1, and optimization.update_freq=[{self.gpus * self.repeat}]"
                ),
                "task._name": "the task of HuBERT fine-tuning too",
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
            "change that instead.",
            f"Values are those of fairseq's examples/{self.source}. {self.derived}".rstrip(),
            *(f"- {change.what}: {change.why}." for change in self.changes),
            f"An update has {self.gpus} GPUs x {self.repeat} batches of up to "
            f"{self.values['dataset.max_tokens'] / 1e6:g}M samples; on another number of GPUs keep "
            f"distributed_world_size x update_freq at {self.gpus * self.repeat}.",
        ]
        wrapped = (textwrap.wrap(line, 116, subsequent_indent="  " * line.startswith("-")) for line in lines)
        command = [
            f"  python -m fairseq_skd.train {self.name} task.data=/data/manifests \\",
            f"    model.w2v_path=/models/{encoder.checkpoint} checkpoint.save_dir=/runs/skd",
        ]
        comment = [*itertools.chain(*wrapped), "", *command]
        return "".join(f"{f'# {line}'.rstrip()}\n" for line in comment)

    def row(self) -> str:
        """What the table says of it, but for its name."""
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
    """A YAML with other values, group.key by group.key, and other comments behind them."""
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
    """A value as it stands in the YAML. Rates keep a point: 3e-05 would be a string to some readers of YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:.1e}" if isinstance(value, float) and 0 < value < 1e-3 else str(value)


def _with_head(text: str, head: str) -> str:
    return f"# @package _group_\n\n{head}\n{text[text.index('common:') :]}"


def table() -> str:
    """The recipes as Markdown; encoders that are trained alike share a row."""
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
    """All that is written: path -> text."""
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
