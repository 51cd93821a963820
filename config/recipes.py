"""What config/finetune/ is written from: the recipes that fairseq ships, and whose they are taken to be.

A new recipe is a line of PUBLISHED, a new encoder a line of ENCODERS; what departs from a published file stands in
CHANGES with its reason, and why a file made for another encoder is taken stands in DERIVED. tests/test_recipes.py holds
all of it against the files in the installed fairseq.
"""

from dataclasses import dataclass
from typing import Any

AMOUNTS = ("1h", "10h", "100h", "960h")

# The files below fairseq's examples/, and what they set. lr is a peak; masks cover spans of 10 frames and 64 channels.
KEYS = (
    *("optimization.max_update", "optimization.lr", "model.freeze_finetune_updates"),
    *("model.mask_prob", "model.mask_channel_prob", "model.layerdrop"),
    *("dataset.max_tokens", "distributed_training.distributed_world_size", "optimization.update_freq"),
)
WAV2VEC, HUBERT = "wav2vec/config/finetuning", "hubert/config/finetune"
PUBLISHED = {
    #                           updates  lr      frozen  masks       LayerDrop samples  GPUs  update_freq
    f"{WAV2VEC}/base_1h.yaml": (13_000, [5e-5], 10_000, 0.65, 0.25, 0.1, 3_200_000, 2, [4]),
    f"{WAV2VEC}/base_10h.yaml": (20_000, [5e-5], 10_000, 0.65, 0.5, 0.05, 3_200_000, 2, [4]),
    f"{WAV2VEC}/base_100h.yaml": (80_000, [3e-5], 0, 0.65, 0.5, 0.1, 3_200_000, 2, [4]),
    f"{WAV2VEC}/base_960h.yaml": (320_000, [1e-4], 0, 0.5, 0.1, 0.1, 3_200_000, 8, [1]),
    f"{WAV2VEC}/vox_1h.yaml": (13_000, [3e-4], 10_000, 0.75, 0.25, 0.1, 1_280_000, 4, [5]),
    f"{WAV2VEC}/vox_10h.yaml": (20_000, [1e-4], 10_000, 0.75, 0.25, 0.1, 1_280_000, 4, [5]),
    f"{WAV2VEC}/vox_100h.yaml": (80_000, [3e-5], 10_000, 0.5, 0.5, 0.1, 1_280_000, 4, [5]),
    f"{WAV2VEC}/vox_960h.yaml": (320_000, [3e-5], 10_000, 0.5, 0.25, 0.1, 1_280_000, 24, [1]),
    f"{HUBERT}/base_10h.yaml": (25_000, [2e-5], 10_000, 0.75, 0.5, 0.1, 3_200_000, 1, [1]),
}
# The same in all of them, but for the amounts of speech that are told apart in plan().
SHARED = {
    "checkpoint.save_interval": 1,
    "checkpoint.save_interval_updates": 0,
    "checkpoint.keep_interval_updates": -1,
    "dataset.validate_interval": 1,
    "dataset.validate_interval_updates": 0,
    "dataset.validate_after_updates": 0,
    "lr_scheduler.phase_ratio": [0.1, 0.4, 0.5],
}


@dataclass(frozen=True)
class Encoder:
    """A pretrained encoder: words for it, its checkpoint's file, fairseq's task, L, and how its audio was scaled."""

    title: str
    checkpoint: str
    task: str
    layers: int
    normalize: bool


ENCODERS = {
    "hubert_base": Encoder("HuBERT base", "hubert_base_ls960.pt", "hubert_pretraining", 12, False),
    "hubert_large": Encoder("HuBERT large", "hubert_large_ll60k.pt", "hubert_pretraining", 24, True),
    "wavlm_base": Encoder("WavLM base", "WavLM-Base.pt", "hubert_pretraining", 12, False),
    "wavlm_base_plus": Encoder("WavLM base+", "WavLM-Base+.pt", "hubert_pretraining", 12, False),
    "wavlm_large": Encoder("WavLM large", "WavLM-Large.pt", "hubert_pretraining", 24, True),
    "wav2vec_base": Encoder("wav2vec 2.0 base", "wav2vec_small.pt", "audio_finetuning", 12, False),
}


@dataclass(frozen=True)
class Change:
    """Values that are not the published file's: what they are about, the values, and why."""

    what: str
    values: dict[str, Any]
    why: str


def _gpus(number: int, why: str) -> Change:
    key = "distributed_training.distributed_world_size"
    return Change("GPUs", {key: number, "optimization.update_freq": [1]}, why)


def _by_updates(epochs: int) -> Change:
    values = {
        "checkpoint.save_interval": epochs,
        "checkpoint.save_interval_updates": 500,
        "checkpoint.keep_interval_updates": 1,
        "dataset.validate_interval": epochs,
        "dataset.validate_interval_updates": 500,
        "dataset.validate_after_updates": "${model.freeze_finetune_updates}",
    }
    return Change("validation and checkpoints", values, "every 500 updates; an epoch of 1 h has 2 of them, of 10 h 20")


BASE, LARGE = ("hubert_base", "wavlm_base", "wavlm_base_plus"), ("hubert_large", "wavlm_large")
# Encoders, amounts, and what of the recipe is not theirs.
CHANGES: list[tuple[tuple[str, ...], tuple[str, ...], Change]] = [
    (BASE, ("1h", "100h"), _gpus(8, "the same batch on 8 x 1 as on 2 x 4, as in HuBERT's paper")),
    (BASE, ("10h",), _gpus(8, "as in HuBERT's paper; base_10h leaves the number to its launcher")),
    (
        ("wavlm_large",),
        ("1h", "10h", "100h"),
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
        LARGE,
        ("1h",),
        Change(
            "lr", {"optimization.lr": [1e-4]}, "the end of HuBERT's sweep, and vox_10h's; vox_1h's 3e-4 is beyond it"
        ),
    ),
    (tuple(ENCODERS), ("1h",), _by_updates(500)),
    (tuple(ENCODERS), ("10h",), _by_updates(50)),
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
    (("hubert_base",), ("1h", "100h", "960h"), _SWEEP.format("base model")),
    (("hubert_large",), AMOUNTS, _SWEEP.format("large model of Libri-Light")),
    (("hubert_large",), AMOUNTS, _BATCH),
    (("wavlm_base", "wavlm_base_plus"), AMOUNTS, _WAVLM.format("base model")),
    (("wavlm_large",), AMOUNTS, _WAVLM.format("large model")),
    (BASE, ("100h",), _SCRIPT),
]


@dataclass(frozen=True)
class Plan:
    """A recipe of PUBLISHED, why it is taken where it was made for another encoder, and the departures from it."""

    source: str
    derived: str
    changes: list[Change]

    def values(self) -> dict[str, Any]:
        """Dotted key -> value, of all keys that differ between recipes."""
        published = dict(zip(KEYS, PUBLISHED[self.source], strict=True))
        return {**SHARED, **published, **{k: v for change in self.changes for k, v in change.values.items()}}


def plan(encoder: str, amount: str) -> Plan:
    """How an encoder is fine-tuned on an amount of speech."""
    source = f"{WAV2VEC}/{'vox' if encoder in LARGE else 'base'}_{amount}.yaml"
    if encoder in BASE and amount == "10h":
        source = f"{HUBERT}/base_10h.yaml"
    derived = [text for encoders, amounts, text in DERIVED if encoder in encoders and amount in amounts]
    changes = [change for encoders, amounts, change in CHANGES if encoder in encoders and amount in amounts]
    return Plan(source, " ".join(derived), changes)
