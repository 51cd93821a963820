"""A fine-tuned ``skd_ctc`` checkpoint: what it was trained as, and the model at one of its exits."""

import dataclasses
import os
from typing import Any

from fairseq.data import Dictionary
from fairseq.tasks import FairseqTask
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from fairseq_skd.encoders.exits import check_student_layers
from fairseq_skd.encoders.loading import check_followed, dictionary_of, load_checkpoint
from fairseq_skd.encoders.pretrained import PretrainedEncoder
from fairseq_skd.encoders.weight_files import check_finite
from fairseq_skd.errors import UserError, shown
from fairseq_skd.models.heads import head_tensors
from fairseq_skd.models.settings import read_saved
from fairseq_skd.models.skd_ctc import SkdCtc

# Keys that take their value from another section, which only a training has to have.
_ELSEWHERE = {"data": ".", "seed": 1, "ddp_backend": "legacy_ddp"}


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """What using a checkpoint needs of it.

    Attributes:
        path: the file.
        config: the training configuration, plain.
        weights: parameters by name, until :func:`build_model` has taken them.
        symbols: V, the outputs of a CTC head, blank included.
        dictionary: of the training labels; None if the checkpoint does not hold it.
        encoder: kind and architecture.
    """

    path: str
    config: dict[str, Any]
    weights: dict[str, Tensor]
    symbols: int
    dictionary: Dictionary | None
    encoder: PretrainedEncoder

    @property
    def depth(self) -> int:
        """L."""
        return self.encoder.depth

    @property
    def students(self) -> list[int]:
        """Layer counts of the students."""
        return list(self.config["model"].get("student_layers") or [])

    @property
    def shortest_audio(self) -> int:
        """Samples that the feature extractor needs for one frame."""
        return self.encoder.shortest_audio


def open_trained(path: str | os.PathLike[str], key: str = "common_eval.path") -> TrainedModel:
    """Open a checkpoint that ``fairseq-hydra-train`` made with model ``skd_ctc``.

    Args:
        path: the file.
        key: where it was given, for messages.

    Raises:
        UserError: not readable (see :func:`~fairseq_skd.encoders.loading.load_checkpoint`), or another model.
    """
    return read_trained(load_checkpoint(path), path, key)


def read_trained(state: dict[str, Any], path: str | os.PathLike[str], key: str) -> TrainedModel:
    """The same from what :func:`~fairseq_skd.encoders.loading.load_checkpoint` read.

    Raises:
        UserError: another model, or a damaged one; naming the key.
    """
    source = f"{key}={path}"
    config = state.get("cfg") or {"model": {"_name": getattr(state["args"], "arch", None)}}
    name = config["model"].get("_name") or "unnamed"
    if name != "skd_ctc":
        raise UserError(
            f"{source} is a checkpoint of model {shown(name)}, one of skd_ctc is needed: fine-tune from it "
            f"with model.w2v_path (pretrained) or checkpoint.finetune_from_model (fine-tuned)"
        )
    check_followed(state["left_out"], None, source)
    heads = head_tensors(state["model"])
    if not isinstance(config["model"].get("w2v_args"), dict) or not heads:
        raise UserError(f"{source} lacks the encoder's configuration or a CTC head: it is damaged")
    encoder = PretrainedEncoder.from_w2v_args(config["model"]["w2v_args"], source=source)
    encoder.check_size(state["model"])
    model = read_saved(config["model"], source)
    if model.setdefault("normalize", encoder.normalize) is not encoder.normalize:
        raise UserError(
            f"{source} is damaged: its model.normalize={shown(model['normalize'])} is not normalize of its encoder, "
            f"{encoder.normalize}"
        )
    try:
        check_student_layers(model.get("student_layers", ()), encoder.depth)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    config = {**config, "model": {**_ELSEWHERE, **model}}
    symbols = next(iter(heads.values())).size(0)
    return TrainedModel(str(path), config, state["model"], symbols, dictionary_of(state, source), encoder)


def build_model(trained: TrainedModel, task: FairseqTask, exit_layer: int) -> SkdCtc:
    """The model up to an exit, in evaluation mode, with the checkpoint's weights.

    Raises:
        UserError: the weights are not those that the configuration asks for, or hold NaN or Inf.
    """
    check_finite(trained.weights, f"checkpoint {trained.path}")
    decoded = 0 if exit_layer == trained.depth else exit_layer
    config = config_tree(trained, model={**trained.config["model"], "decode_layer": decoded})
    model = task.build_model(config.model, from_checkpoint=True)
    try:
        model.load_state_dict(dict(trained.weights), strict=True, model_cfg=config.model)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{trained.path}: the weights do not fit the configuration saved with them: {reason}"
        ) from error
    trained.weights.clear()  # those above the exit would stay in memory
    return model.eval()


def config_tree(trained: TrainedModel, **replaced: dict[str, Any]) -> DictConfig:
    """The whole training configuration, because defaults of fairseq's interpolate from one part into others."""
    return OmegaConf.create({**trained.config, **replaced})
