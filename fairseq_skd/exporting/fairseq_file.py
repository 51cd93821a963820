"""Format ``fairseq``: a checkpoint of one exit, which is the full model there."""

import re
from pathlib import Path

import torch

from fairseq_skd.encoders.fine_tuned import CHECKPOINT
from fairseq_skd.encoders.pretrained import PretrainedEncoder, section
from fairseq_skd.files.disk import replacing
from fairseq_skd.files.units import WORD_MARK
from fairseq_skd.models.state_dict import full_model
from fairseq_skd.recognizer import Recognizer


def write(rec: Recognizer, folder: Path) -> None:
    """Write ``checkpoint.pt`` and ``dict.<labels>.txt``.

    The checkpoint has the training's configuration, with the encoder's number of layers, without
    students. It has no state of the optimizer, so a training starts from it and does not resume it.

    Args:
        rec: loaded at one exit.
        folder: an empty folder.

    Raises:
        UserError: the checkpoint holds no dictionary.
    """
    (layers,) = rec.exits
    dictionary = rec.dictionary
    model = rec.config["model"]
    encoder = PretrainedEncoder.from_w2v_args(model["w2v_args"]).first_layers(layers)
    model = {**model, "w2v_args": encoder.to_w2v_args(), "student_layers": [], "decode_layer": 0}
    if layers < rec.depth:
        model["keep_layers"] = layers  # of the pretrained encoder, for a training that goes on
    state = {
        "args": None,
        "cfg": {**rec.config, "model": model},
        "model": full_model(rec.model.state_dict(), layers),
        "task_state": {"target_dictionary": dictionary},
        "optimizer_history": [{"num_updates": rec.updates or 0, "optimizer_name": "", "lr_scheduler_state": {}}],
    }
    with replacing(folder / CHECKPOINT) as beside:
        torch.save(state, beside)
    dictionary.save(str(folder / f"dict.{labels(rec)}.txt"))


def labels(rec: Recognizer) -> str:
    """Return the ending of the training's label files: ``ltr``, ``spm`` or similar."""
    named = section(rec.config, "task").get("labels")
    named = named[0] if isinstance(named, list) and named else named
    if isinstance(named, str) and re.fullmatch(r"\w{1,20}", named, re.ASCII):
        return named
    return "spm" if any(symbol.startswith(WORD_MARK) for symbol in rec.symbols) else "ltr"
