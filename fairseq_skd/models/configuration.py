"""The keys of ``model:`` for ``_name: skd_ctc``: those of fairseq's ``hubert_ctc`` and ``wav2vec_ctc``, and ours."""

from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models.wav2vec.wav2vec2 import MASKING_DISTRIBUTION_CHOICES
from omegaconf import II, MISSING

LAYER_TYPES = ChoiceEnum(["transformer", "conformer", "trf_adp"])  # the union of all builds


def _key(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


# Optional[...] rather than "| None" throughout: omegaconf 2.0 reads these annotations.
@dataclass
class SkdCtcConfig(FairseqDataclass):
    """Every field of fairseq's fine-tuning configurations keeps its name, default and meaning."""

    # Ours
    student_layers: list[int] = field(
        default_factory=lambda: [6],
        metadata={"help": "layer counts of the self-students, 1-based; [] is plain CTC fine-tuning"},
    )
    keep_layers: int = _key(0, "train only the first so many layers of the pretrained encoder; 0: all (layer pruning)")
    decode_layer: int = _key(0, "exit to decode with: 0 the full model, l the student of l layers (set when decoding)")

    # The pretrained encoder
    w2v_path: str = _key(MISSING, "pretrained HuBERT, wav2vec 2.0 or WavLM: a checkpoint or a Hugging Face folder")
    w2v_args: Any = None  # its configuration, kept in every fine-tuned checkpoint
    no_pretrained_weights: bool = _key(False, "build the encoder of w2v_path with random weights")
    load_ema: bool = _key(False, "data2vec only: refused")
    encoder_embed_dim: Optional[int] = _key(768, "unused, as in fairseq: the width is the checkpoint's")
    autoregressive: bool = _key(False, "sequence-to-sequence only: refused")
    normalize: bool = II("task.normalize")
    data: str = II("task.data")
    seed: int = II("common.seed")

    # Regularisation
    dropout_input: float = _key(0.0, "dropout on the extracted features")
    final_dropout: float = _key(0.0, "dropout before each CTC head")
    dropout: float = _key(0.0, "dropout inside the encoder")
    attention_dropout: float = _key(0.0, "dropout on attention weights")
    activation_dropout: float = _key(0.0, "dropout inside the feed-forward blocks")
    layerdrop: float = _key(0.0, "probability of skipping a layer in training")
    drop_path: float = _key(0.0, "data2vec only: refused unless 0")
    layer_decay: float = _key(1.0, "data2vec only: refused unless 1")

    # Masks over frames
    apply_mask: bool = _key(False, "mask frames and channels in training")
    mask_length: int = _key(10, "frames of a span")
    mask_prob: float = _key(0.5, "share of frames covered if no spans overlapped")
    mask_selection: MASKING_DISTRIBUTION_CHOICES = _key("static", "distribution of the spans' lengths")
    mask_other: float = _key(0.0, "second parameter of that distribution")
    no_mask_overlap: bool = _key(False, "keep spans apart")
    mask_min_space: Optional[int] = _key(1, "frames between spans that are kept apart")
    require_same_masks: bool = _key(True, "mask equally many frames in all utterances of a batch")
    mask_dropout: float = _key(0.0, "share of masked frames to unmask again")
    zero_mask: bool = _key(False, "data2vec only: refused")

    # Masks over channels
    mask_channel_length: int = _key(10, "channels of a span")
    mask_channel_prob: float = _key(0.0, "share of channels covered if no spans overlapped")
    mask_channel_selection: MASKING_DISTRIBUTION_CHOICES = _key("static", "distribution of the spans' lengths")
    mask_channel_other: float = _key(0.0, "second parameter of that distribution")
    no_mask_channel_overlap: bool = _key(False, "keep spans apart")
    mask_channel_min_space: Optional[int] = _key(1, "channels between spans that are kept apart")
    mask_channel_before: bool = _key(False, "mask channels before frames")

    # What is trained when
    freeze_finetune_updates: int = _key(0, "updates during which only the heads train")
    feature_grad_mult: float = _key(0.0, "scales the feature extractor's gradient; 0 freezes it")
    freeze_regex: Optional[str] = _key(None, "freeze encoder parameters whose whole name matches")

    # Output
    blank_weight: float = _key(0.0, "added to (or set as) the blank's logit")
    blank_mode: str = _key("add", "add or set")

    # Memory, and what the layers are made of
    checkpoint_activations: bool = _key(False, "recompute activations in the backward pass")
    offload_activations: bool = _key(False, "with checkpoint_activations: keep them on the CPU")
    min_params_to_wrap: int = _key(int(1e8), "fully sharded training: smallest layer to wrap")
    ddp_backend: str = II("distributed_training.ddp_backend")
    layer_type: LAYER_TYPES = _key(  # type: ignore[valid-type]
        "transformer", "unused: the layers are the checkpoint's; trf_adp (adapters) is refused"
    )
    adp_num: int = _key(-1, "adapters only: no effect")
    adp_dim: int = _key(64, "adapters only: no effect")
    adp_act_fn: str = _key("relu", "adapters only: no effect")
    adp_trf_idx: str = _key("all", "adapters only: no effect")
    update_alibi: bool = _key(True, "data2vec only: no effect")
