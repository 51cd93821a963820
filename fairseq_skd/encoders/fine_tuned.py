"""Read a fine-tuned model, a file or a folder, and the encoder that it was made of."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq_skd.encoders import huggingface
from fairseq_skd.encoders.checkpoint import OPTIMIZER, check_followed, load_checkpoint
from fairseq_skd.encoders.huggingface_ctc import load_fine_tuned
from fairseq_skd.encoders.pretrained import USED, PretrainedEncoder, section
from fairseq_skd.errors import UserError

CHECKPOINT = "checkpoint.pt"  # in an exported folder


def holds_fine_tuned(folder: Path) -> bool:
    """Whether a folder is an exported model of ours, or a model of Hugging Face."""
    return (folder / CHECKPOINT).is_file() or (folder / huggingface.CONFIG).is_file()


def read_fine_tuned(path: str | os.PathLike[str]) -> tuple[dict[str, Any], str | os.PathLike[str]]:
    """Read a fine-tuned checkpoint without the state of its optimizer.

    Args:
        path: a checkpoint, an exported folder with ``checkpoint.pt``, or a folder of a fine-tuned
            Hugging Face model.

    Returns:
        the checkpoint, as from :func:`~fairseq_skd.encoders.checkpoint.load_checkpoint`; and the
        file of its weights.

    Raises:
        UserError: the file cannot be read, or the folder holds no fine-tuned model.
    """
    folder = Path(path).expanduser()
    if (folder / CHECKPOINT).is_file():
        path = folder / CHECKPOINT
    elif (folder / huggingface.CONFIG).is_file():
        return load_fine_tuned(folder)
    elif folder.is_dir():
        raise UserError(
            f"checkpoint {folder} is a folder without {CHECKPOINT} or {huggingface.CONFIG}: give a checkpoint, such "
            f"as {folder / 'checkpoint_best.pt'}, or an exported folder"
        )
    return load_checkpoint(path, unread=[OPTIMIZER]), path


def encoder_of_fine_tuned(path: str | os.PathLike[str]) -> PretrainedEncoder:
    """Read the encoder of a fine-tuned checkpoint: its configuration, without weights.

    Args:
        path: see :func:`read_fine_tuned`; also fairseq's ``hubert_ctc`` and ``wav2vec_ctc``.

    Raises:
        UserError: the checkpoint cannot be read, or does not hold the encoder's configuration.
    """
    state, _ = read_fine_tuned(path)
    source = f"checkpoint {path}"
    model = state["cfg"]["model"] if state["cfg"] is not None else vars(state["args"])
    args = model.get("w2v_args")
    if not isinstance(args, Mapping):
        raise UserError(
            f"{source} does not hold the configuration of its encoder: set model.w2v_path to the pretrained encoder, "
            f"and checkpoint.finetune_from_model to a checkpoint that was fine-tuned from it"
        )
    left_out = {f"model.{key.rpartition('.')[2]}": text for key, text in state["left_out"].items() if "w2v_args" in key}
    check_followed(left_out, USED, source)
    if not section(args, "model"):  # fairseq's old style is flat
        args = {"model": {**args, "_name": args.get("arch")}, "task": args}
    encoder = PretrainedEncoder.from_w2v_args(args, source)
    encoder.check_size(state["model"])
    encoder.normalize_said_by = state.get("normalize_said_by", encoder.normalize_said_by)
    return encoder
