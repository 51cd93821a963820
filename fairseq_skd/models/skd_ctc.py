"""The model ``skd_ctc``: one pretrained trunk with a CTC head on its last layer and per student.

The teacher's parameters have the names of fairseq's ``hubert_ctc`` and ``wav2vec_ctc``:
``w2v_encoder.w2v_model.*`` and ``w2v_encoder.proj.*``. Students have ``student_heads.<l>.*``.
"""

import contextlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.distributed import utils as distributed_utils
from fairseq.models import BaseFairseqModel, register_model
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from fairseq_skd.compat import to_container
from fairseq_skd.encoders.checkpoint import load_pretrained, load_weights
from fairseq_skd.encoders.fine_tuned import encoder_of_fine_tuned
from fairseq_skd.encoders.pretrained import PretrainedEncoder
from fairseq_skd.encoders.trunk import Trunk
from fairseq_skd.errors import UserError
from fairseq_skd.models.config import (
    SkdCtcConfig,
    check_model,
    encoder_settings,
    keep,
    regularisation,
    root_of,
    select,
)
from fairseq_skd.models.heads import NoExitError, StudentHead, check_exit, check_student_layers, ctc_projection
from fairseq_skd.models.state_dict import adapt

logger = logging.getLogger(__name__)


@register_model("skd_ctc", dataclass=SkdCtcConfig)
class SkdCtc(BaseFairseqModel):
    """Self-teacher and self-students on one trunk (docs/method.md, section 1).

    Args:
        cfg: the keys of ``model:``.
        pretrained: the encoder, with its weights when a training begins.
        symbols: V.
        exits: layer counts of the heads to build; the first is decoded. None: all heads of a
            training, or only ``cfg.decode_layer``, which fairseq's own decoder sets.

    Attributes:
        depth: L.
        exits: layer counts of the heads; in a training (L, l, ...), the teacher first.
        student_layers: layer counts of the students in ``exits``.
        num_updates: updates done; fairseq sets it before every step and after a resume.
    """

    def __init__(
        self, cfg: SkdCtcConfig, pretrained: PretrainedEncoder, symbols: int, exits: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.cfg = cfg
        self.depth = pretrained.depth
        students = check_student_layers(cfg.student_layers, self.depth)
        if exits is None:
            exits = (self.depth, *students) if cfg.decode_layer in (0, self.depth) else (cfg.decode_layer,)
        try:
            self.exits = tuple(check_exit(layer, students, self.depth) for layer in exits)
        except NoExitError as error:
            raise UserError(f"model.decode_layer={cfg.decode_layer}: {error}") from error
        self.student_layers = tuple(layer for layer in self.exits if layer != self.depth)
        self.num_updates = 0
        self._micro_batch = 0

        self.w2v_encoder = Trunk(
            pretrained, max(self.exits), encoder_settings(cfg), regularisation(cfg), cfg.feature_grad_mult
        )
        if pretrained.weights and not cfg.no_pretrained_weights:
            load_weights(self.w2v_encoder.w2v_model, pretrained.weights, pretrained.source)
        width = int(pretrained.architecture["encoder_embed_dim"])
        final_norm = self.w2v_encoder.final_norm
        self.final_dropout = nn.Dropout(cfg.final_dropout)
        if self.depth in self.exits:
            self.w2v_encoder.proj = ctc_projection(width, symbols)
        elif final_norm is not None:
            self.w2v_encoder.drop_final_norm()  # it belongs to the teacher
        self.student_heads = nn.ModuleDict(
            {str(layer): StudentHead(width, symbols, final_norm) for layer in sorted(self.student_layers)}
        )
        if cfg.freeze_regex is not None:
            for name, parameter in self.w2v_encoder.named_parameters():
                parameter.requires_grad_(re.fullmatch(cfg.freeze_regex, name) is None)

    @classmethod
    def build_model(cls, cfg: SkdCtcConfig, task: FairseqTask) -> "SkdCtc":
        """Build from ``cfg.w2v_path``, or from ``cfg.w2v_args`` to load a fine-tuned checkpoint.

        Raises:
            UserError: the encoder cannot be loaded (see
                :func:`~fairseq_skd.encoders.checkpoint.load_pretrained`), the task prepares audio
                differently from pretraining, or a student layer does not exist.
        """
        check_model(cfg)
        if cfg.w2v_args is not None:
            pretrained = PretrainedEncoder.from_w2v_args(to_container(cfg.w2v_args))
        else:
            if cfg.decode_layer != 0:
                raise UserError(f"model.decode_layer={cfg.decode_layer} is for decoding only: set it to 0 to train")
            start = select(root_of(cfg), "checkpoint.finetune_from_model")
            # If both are one checkpoint, the trainer loads the weights: only the shape is needed.
            same = start is not None and Path(start) == Path(cfg.w2v_path)
            pretrained = encoder_of_fine_tuned(start) if same else load_pretrained(cfg.w2v_path)
            pretrained = _override_normalize(pretrained, cfg.w2v_normalize)
            if cfg.keep_layers != 0:
                pretrained = pretrained.first_layers(cfg.keep_layers)
            keep(cfg, "model", "w2v_args", pretrained.to_w2v_args())  # a checkpoint then loads without w2v_path
        if bool(cfg.normalize) != pretrained.normalize:
            right, wrong = (str(value).lower() for value in (pretrained.normalize, not pretrained.normalize))
            raise UserError(
                f"task.normalize={cfg.normalize} but {pretrained.normalize_said_by}: set task.normalize={right}, or, "
                f"if that is wrong, model.w2v_normalize={wrong}"
            )
        sample_rate = getattr(task.cfg, "sample_rate", pretrained.sample_rate)
        if sample_rate != pretrained.sample_rate:
            raise UserError(
                f"task.sample_rate={sample_rate} but the encoder was pretrained at {pretrained.sample_rate} Hz: "
                f"resample the audio and set task.sample_rate={pretrained.sample_rate}"
            )
        if task.target_dictionary is None:
            raise UserError("the task has no target dictionary: set task.labels and, for hubert, task.fine_tuning=true")
        return cls(cfg, pretrained, len(task.target_dictionary))

    def set_num_updates(self, num_updates: int) -> None:
        """Set the number of updates done; a new number restarts the count of micro-batches.

        fairseq calls it before every forward pass of an update.
        """
        super().set_num_updates(num_updates)
        if num_updates != self.num_updates:
            self._micro_batch = 0
        self.num_updates = num_updates

    def forward(self, source: Tensor, padding_mask: Tensor | None = None, **_: Any) -> dict[str, Any]:
        """Run the trunk once, and all heads.

        Args:
            source: (B, samples), at the encoder's sampling rate.
            padding_mask: (B, samples) bool, true on padding.

        Returns:
            ``encoder_out`` (T, B, V), logits of the first exit: the teacher, or the decoded
            student; ``exit_logits``, exit -> logits (T, B, V); ``padding_mask`` and
            ``encoder_padding_mask`` (B, T) or None; ``frame_lengths`` (B,).
        """
        training_heads_only = self.num_updates < self.cfg.freeze_finetune_updates
        with torch.no_grad() if training_heads_only else contextlib.nullcontext():
            out = self.w2v_encoder(source, padding_mask, self.exits, self._generator())
            taps = dict(out.taps)
            if self.depth in taps and self.w2v_encoder.final_norm is not None:
                taps[self.depth] = self.w2v_encoder.final_norm(taps[self.depth])
        logits = {layer: self._head(layer, taps[layer]) for layer in self.exits}
        return {
            "encoder_out": logits[self.exits[0]],
            "exit_logits": logits,
            "encoder_padding_mask": out.padding_mask,
            "padding_mask": out.padding_mask,
            "frame_lengths": out.frame_lengths,
        }

    def get_logits(self, net_output: Mapping[str, Any], normalize: bool = False) -> Tensor:
        """Return logits of the decoded exit, (T, B, V), with padded frames certainly blank."""
        logits = net_output["encoder_out"]
        padding = net_output["padding_mask"]
        if padding is not None:
            padding = padding.transpose(0, 1).unsqueeze(2)  # (B, T) -> (T, B, 1)
            blank = torch.full_like(logits[0, 0], -torch.inf)
            blank[0] = 0
            logits = torch.where(padding, blank, logits)
        return torch.log_softmax(logits.float(), dim=-1) if normalize else logits

    def get_normalized_probs(
        self, net_output: Mapping[str, Any], log_probs: bool, sample: Mapping[str, Any] | None = None
    ) -> Tensor:
        """Return posteriors or log posteriors of the decoded exit, (T, B, V), float32."""
        lprobs = self.get_logits(net_output, normalize=True)
        return lprobs if log_probs else lprobs.exp()

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """Adapt a checkpoint to the model: see :func:`~fairseq_skd.models.state_dict.adapt`."""
        super().upgrade_state_dict_named(state_dict, name)
        prefix = f"{name}." if name else ""
        adapt(state_dict, prefix, self.state_dict(), self.depth, self.exits, self.cfg.keep_layers)

    def _head(self, layer: int, hidden: Tensor) -> Tensor:
        if layer == self.depth and self.w2v_encoder.proj is not None:
            return self._weigh_blank(self.w2v_encoder.proj(self.final_dropout(hidden)))
        return self._weigh_blank(self.student_heads[str(layer)](hidden, self.final_dropout))

    def _weigh_blank(self, logits: Tensor) -> Tensor:
        if self.cfg.blank_weight == 0:
            return logits
        change = torch.zeros_like(logits[0, 0])
        change[0] = self.cfg.blank_weight
        if self.cfg.blank_mode == "add":
            return logits + change
        is_blank = torch.arange(logits.size(-1), device=logits.device) == 0
        return torch.where(is_blank, change, logits)

    def _generator(self) -> np.random.Generator | None:
        """Make the generator of this pass's masks and LayerDrop.

        Its seed depends only on ``common.seed``, update, micro-batch and worker.
        """
        if not self.training:
            return None
        worker = distributed_utils.get_data_parallel_rank() if torch.distributed.is_initialized() else 0
        key = (self.cfg.seed, self.num_updates, self._micro_batch, worker)
        self._micro_batch += 1
        return np.random.default_rng([abs(int(part)) for part in key])


def _override_normalize(pretrained: PretrainedEncoder, normalize: bool | None) -> PretrainedEncoder:
    """Let ``model.w2v_normalize`` win; the checkpoint then saves its value."""
    if normalize is None or normalize == pretrained.normalize:
        return pretrained
    logger.info("model.w2v_normalize=%s wins, though %s", normalize, pretrained.normalize_said_by)
    return replace(pretrained, normalize=normalize, normalize_said_by=f"model.w2v_normalize={normalize}")
