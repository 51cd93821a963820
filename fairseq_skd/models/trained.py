"""A fine-tuned ``skd_ctc`` checkpoint: its configuration, weights and dictionary."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq.data import Dictionary
from torch import Tensor

from fairseq_skd.encoders import huggingface
from fairseq_skd.encoders.checkpoint import check_followed, dictionary_of
from fairseq_skd.encoders.fine_tuned import read_fine_tuned
from fairseq_skd.encoders.pretrained import PretrainedEncoder, section
from fairseq_skd.errors import UserError, shown
from fairseq_skd.files.waveforms import Waveforms
from fairseq_skd.models.config import read_saved
from fairseq_skd.models.heads import check_student_layers, head_tensors

# Keys that fairseq interpolates from other sections. Only a training needs those sections.
_INTERPOLATED = {"data": ".", "seed": 1, "ddp_backend": "legacy_ddp"}


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """Configuration, weights and dictionary of a fine-tuned checkpoint.

    Attributes:
        path: the file.
        config: the training configuration as plain Python.
        weights: parameters by name; a :class:`~fairseq_skd.recognizer.Recognizer` empties it.
        symbols: V, the outputs of a CTC head, blank included.
        dictionary: of the training labels; None if the checkpoint has none.
        encoder: kind and architecture.
        updates: number of updates that the training had done; None if the file does not say.
    """

    path: str
    config: dict[str, Any]
    weights: dict[str, Tensor]
    symbols: int
    dictionary: Dictionary | None
    encoder: PretrainedEncoder
    updates: int | None = None

    @property
    def depth(self) -> int:
        """L, the number of layers of the full model."""
        return self.encoder.depth

    @property
    def students(self) -> list[int]:
        """Layer counts of the students."""
        return list(self.config["model"].get("student_layers") or [])

    @property
    def post_process(self) -> Any:
        """How validation joined units to words; None if the checkpoint does not say."""
        return section(self.config, "criterion").get("post_process")

    @property
    def waveforms(self) -> Waveforms:
        """How audio is prepared for the encoder."""
        return Waveforms(self.encoder.sample_rate, self.encoder.normalize, self.encoder.frame_grid.shortest)


def open_trained(path: str | os.PathLike[str]) -> TrainedModel:
    """Open a fine-tuned checkpoint, or a folder with one.

    Args:
        path: a checkpoint that ``fairseq-hydra-train`` wrote with model ``skd_ctc``, a folder with
            such a ``checkpoint.pt``, or a folder of a fine-tuned Hugging Face model.

    Raises:
        UserError: the file cannot be read (see
            :func:`~fairseq_skd.encoders.checkpoint.load_checkpoint`), or holds another model.
    """
    folder = Path(path).expanduser()
    if folder.suffix == ".onnx" or any(folder.glob("*.onnx")):
        raise UserError(
            f"checkpoint {folder} is an ONNX model, which can only be run (of --format onnx: by fairseq_skd.load and "
            f"transcribe): give the checkpoint that it was exported from"
        )
    if folder.name in huggingface.WEIGHTS:
        raise UserError(f"checkpoint {folder} holds weights only: give its folder {folder.parent}")
    return read_trained(*read_fine_tuned(path))


def read_trained(state: dict[str, Any], path: str | os.PathLike[str]) -> TrainedModel:
    """Check and interpret the result of :func:`~fairseq_skd.encoders.checkpoint.load_checkpoint`.

    Raises:
        UserError: the checkpoint holds another model, or is damaged; the message names the key.
    """
    source = f"checkpoint {path}"
    config = state.get("cfg") or {"model": {"_name": getattr(state["args"], "arch", None)}}
    name = config["model"].get("_name") or "unnamed"
    if name != "skd_ctc":
        raise UserError(
            f"{source} holds model {shown(name)}, but skd_ctc is needed: fine-tune from it with model.w2v_path (if "
            f"it is pretrained) or checkpoint.finetune_from_model (if it is fine-tuned)"
        )
    check_followed(state["left_out"], None, source)
    heads = head_tensors(state["model"])
    if not isinstance(config["model"].get("w2v_args"), dict) or not heads:
        raise UserError(f"{source} is damaged: it lacks the encoder's configuration or a CTC head")
    encoder = PretrainedEncoder.from_w2v_args(config["model"]["w2v_args"], source=source)
    encoder.check_size(state["model"])
    model = read_saved(config["model"], source)
    if model.setdefault("normalize", encoder.normalize) is not encoder.normalize:
        raise UserError(
            f"{source} is damaged: its model.normalize={shown(model['normalize'])}, but its encoder has "
            f"normalize={encoder.normalize}"
        )
    try:
        check_student_layers(model.get("student_layers", ()), encoder.depth)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    config = {**config, "model": {**_INTERPOLATED, **model}}
    symbols = next(iter(heads.values())).size(0)
    dictionary = dictionary_of(state, source)
    return TrainedModel(str(path), config, state["model"], symbols, dictionary, encoder, _updates(state))


def _updates(state: Mapping[str, Any]) -> int | None:
    history = state.get("optimizer_history")
    last = history[-1] if isinstance(history, list) and history else None
    updates = last.get("num_updates") if isinstance(last, dict) else None
    return updates if type(updates) is int and updates > 0 else None
