"""Read a pretrained encoder from ``model.w2v_path``: its configuration and weights.

It reads checkpoints of fairseq (``cfg`` or ``args``, and ``model``), of Microsoft and s3prl
(:mod:`fairseq_skd.encoders.formats`), and folders of Hugging Face transformers
(:mod:`fairseq_skd.encoders.huggingface`). The content decides, not the name.
"""

import argparse
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fairseq.data import Dictionary
from torch import Tensor

from fairseq_skd.encoders import huggingface
from fairseq_skd.encoders.formats import from_contentvec, from_microsoft, from_s3prl, hub_name, other_format
from fairseq_skd.encoders.pretrained import USED, PretrainedEncoder, section
from fairseq_skd.encoders.unpickling import Node, RefusedError
from fairseq_skd.encoders.weight_files import check_finite, load_weights_only
from fairseq_skd.errors import UserError, shown

_MOST_VALUES = 50_000
_DEEPEST = 32
_LONGEST_TEXT = 20_000
_LONGEST_KEY = 200
_MOST_TEXT = 2_000_000  # characters in total: one text can be in a thousand places
_MOST_HOPS = 8
_PLAIN = re.compile(r"\$\{(\w+(?:\.\w+)*)\}")
_MISSING = "???"
_NOTHING = object()


class PlainConfig(NamedTuple):
    """A configuration without interpolations.

    Attributes:
        values: dicts with text keys, lists, numbers, texts, booleans and None.
        left_out: dotted key -> text of the interpolations that were not resolved.
    """

    values: dict[str, Any]
    left_out: dict[str, str]


def plain_config(config: Any) -> PlainConfig | None:
    """Convert a checkpoint's configuration to plain Python; None if it is not a mapping.

    ``${section.key}`` becomes the value of that key in the same configuration. A key is left out if
    its text holds ``${`` in another form, if it refers to a missing key or to a whole section, if
    it is not set (``???``), or if its value is not plain.

    Args:
        config: dicts, namespaces, lists and nodes of
            :class:`~fairseq_skd.encoders.unpickling.Unpickler`.

    Raises:
        RefusedError: the configuration is larger or deeper than any real one.
    """
    plain = _Reader().read(config, 0)
    if not isinstance(plain, dict):
        return None
    left_out: dict[str, str] = {}
    return PlainConfig(_followed(plain, plain, "", left_out), left_out)


class _Reader:
    """Copies a configuration, with limits: a list that repeats one list can unfold forever."""

    def __init__(self) -> None:
        self._values = self._text = 0

    def read(self, value: Any, depth: int) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES or depth > _DEEPEST:
            raise RefusedError(f"its configuration has more than {_MOST_VALUES:,} values or {_DEEPEST} levels")
        if isinstance(value, Node):
            return self.read(value.content, depth + 1)
        if isinstance(value, argparse.Namespace):
            value = vars(value)
        if isinstance(value, Mapping):
            if long := next((key for key in value if type(key) is str and len(key) > _LONGEST_KEY), None):
                raise RefusedError(f"its configuration has a key of {len(long):,} characters")
            read = {key: self.read(part, depth + 1) for key, part in value.items() if type(key) is str}
            return {key: part for key, part in read.items() if part is not _NOTHING}
        if isinstance(value, list | tuple):
            return [part for part in (self.read(part, depth + 1) for part in value) if part is not _NOTHING]
        if type(value) is str:
            self._text += len(value)
            if len(value) > _LONGEST_TEXT or self._text > _MOST_TEXT:
                raise RefusedError(f"its configuration has a text of {len(value):,} characters, {self._text:,} in all")
        return value if value is None or (type(value) in (str, int, float, bool) and value != _MISSING) else _NOTHING


def _followed(value: Any, root: Mapping[str, Any], key: str, left_out: dict[str, str]) -> Any:
    if isinstance(value, dict):
        parts = {
            name: _followed(part, root, f"{key}.{name}" if key else name, left_out) for name, part in value.items()
        }
        return {name: part for name, part in parts.items() if part is not _NOTHING}
    if isinstance(value, list):
        parts_of_list = [_followed(part, root, f"{key}[{index}]", left_out) for index, part in enumerate(value)]
        return [part for part in parts_of_list if part is not _NOTHING]
    if not isinstance(value, str) or "${" not in value:
        return value
    target: Any = value
    for _ in range(_MOST_HOPS):
        plain = _PLAIN.fullmatch(target)
        target = _select(root, plain[1]) if plain else _NOTHING
        if not isinstance(target, str) or "${" not in target:
            break
    if isinstance(target, list) and not any(isinstance(part, list | dict) or "${" in str(part) for part in target):
        return list(target)
    if target is _NOTHING or isinstance(target, list | dict) or "${" in str(target):
        left_out[key] = value
        return _NOTHING
    return target


def _select(root: Mapping[str, Any], key: str) -> Any:
    value: Any = root
    for name in key.split("."):
        value = value[name] if isinstance(value, dict) and name in value else _NOTHING
    return value


FINE_TUNED = ("hubert_ctc", "hubert_seq2seq", "wav2vec_ctc", "wav2vec_seq2seq", "skd_ctc")


OPTIMIZER = "last_optimizer_state"  # two thirds of a checkpoint that a training wrote


def load_checkpoint(path: str | os.PathLike[str], unread: Collection[str] = ()) -> dict[str, Any]:
    """Open a fairseq checkpoint as untrusted input: nothing in it is executed.

    Args:
        path: the file.
        unread: keys that are left out and whose tensors are not read, such as :data:`OPTIMIZER`.

    Returns:
        the checkpoint as a dict. ``cfg`` is plain Python, with dicts ``model`` and ``task`` (new
        style), or None, with a namespace ``args`` (old style). ``left_out`` holds unresolved
        interpolations (see :func:`~fairseq_skd.encoders.checkpoint.plain_config`). ``model`` holds
        the weights.

    Raises:
        UserError: the file is missing, truncated, not a checkpoint, or holds objects that are not
            on the allow-list.
    """
    file = Path(path).expanduser()
    state = from_s3prl(load_weights_only(file, unread))
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        what = other_format(state) or "it is not a fairseq checkpoint"
        raise UserError(f"checkpoint {file} holds no 'model' dict: {what}")
    state["model"].pop("_ema", None)  # data2vec's teacher, a dict of tensors
    misnamed = [name for name, tensor in state["model"].items() if not _is_name(name) or not torch.is_tensor(tensor)]
    if misnamed:
        raise UserError(
            f"checkpoint {file}: its 'model' holds {str(misnamed[0])[:100]!r}, which is not the name of a tensor"
        )
    if any(name.startswith("conditioners.") for name in state["model"]):
        raise UserError(
            f"checkpoint {file} was trained with model.condition_on_students=true: use fairseq_skd 0.1.0, the only "
            f"version that reads it"
        )
    try:
        cfg, args = plain_config(state.get("cfg")), plain_config(state.get("args"))
    except RefusedError as error:
        raise UserError(f"checkpoint {file} is refused: {error}") from error
    state["cfg"] = None
    if cfg is not None and cfg.values:
        state["cfg"] = {**cfg.values, "model": section(cfg.values, "model"), "task": section(cfg.values, "task")}
        state["left_out"] = cfg.left_out
    elif args is not None and isinstance(state.get("args"), argparse.Namespace):
        state["args"], state["left_out"] = argparse.Namespace(**args.values), args.left_out
    else:
        raise UserError(f"checkpoint {file} has neither 'cfg' nor 'args': it is not a fairseq checkpoint")
    return state


def dictionary_of(state: Mapping[str, Any], source: str) -> Dictionary | None:
    """Return the dictionary that a checkpoint was trained with; None if it has none.

    Raises:
        UserError: the checkpoint holds something else in its place.
    """
    held = state.get("task_state")
    dictionary = held.get("target_dictionary") if isinstance(held, dict) else held
    if dictionary is not None and (type(dictionary) is not Dictionary or "symbols" not in vars(dictionary)):
        raise UserError(f"{source} is damaged: its task_state holds no dictionary")
    return dictionary


def check_followed(left_out: Mapping[str, str], keys: Collection[str] | None, source: str) -> None:
    """Check that no used key holds an unresolved interpolation.

    Args:
        left_out: see :class:`~fairseq_skd.encoders.checkpoint.PlainConfig`.
        keys: names of used keys in the sections ``model`` and ``task``; None: all.
        source: the checkpoint's name for the message.

    Raises:
        UserError: a used key was left out; the message names the key and its text.
    """
    for key, text in left_out.items():
        section_name, _, name = key.partition(".")
        used = section_name in ("model", "task") if name else keys is not None
        if used and (keys is None or re.split(r"[.\[]", name or section_name)[0] in keys):
            raise UserError(
                f"{source}: {shown(key)}={text[:100]!r} cannot be resolved, only ${{section.key}} with a value is "
                f"allowed in a checkpoint: replace it with the value"
            )


def load_pretrained(path: str | os.PathLike[str]) -> PretrainedEncoder:
    """Read the pretrained encoder of ``model.w2v_path``.

    Raises:
        UserError: see :func:`load_checkpoint` and
            :func:`~fairseq_skd.encoders.huggingface.load_folder`; or it holds another model, which
            the message names.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        return huggingface.load_folder(file)
    if not file.exists() and (name := hub_name(file)):
        place = f"/models/{file.name}"
        raise UserError(
            f"model.w2v_path={path} does not exist: a local file or folder is needed; if {name} is a model on the "
            f"Hugging Face hub, download it with hf download {name} --local-dir {place} (pip install huggingface_hub) "
            f"and set model.w2v_path={place}"
        )
    try:
        state = load_checkpoint(file, unread=[OPTIMIZER])
    except UserError as error:
        beside = file.is_file() and (file.parent / huggingface.CONFIG).is_file()
        instead = f"; for the Hugging Face model in its folder, set model.w2v_path={file.parent}" if beside else ""
        raise UserError(f"model.w2v_path: {error}{instead}") from error
    cfg = from_microsoft(state["cfg"], f"model.w2v_path={path}") or state["cfg"] or _from_namespace(state["args"])
    cfg = from_contentvec(cfg)
    name = cfg["model"].get("_name") or cfg["model"].get("arch") or ""
    if name in FINE_TUNED or any(key.startswith("w2v_encoder.") for key in state["model"]):
        raise UserError(
            f"model.w2v_path={path} is a fine-tuned checkpoint ({shown(name) or 'with a CTC head'}): start from it "
            f"with checkpoint.finetune_from_model={path}, and set model.w2v_path to the pretrained checkpoint"
        )
    check_followed(state["left_out"], USED, f"model.w2v_path={path}")
    encoder = PretrainedEncoder.from_w2v_args(cfg, source=f"model.w2v_path={path}")
    encoder.check_size(state["model"])
    encoder.weights = state["model"]
    return encoder


def load_weights(module: torch.nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy pretrained weights into all parameters of an encoder.

    Raises:
        UserError: a parameter is missing, has another shape, or holds NaN or Inf.
    """
    wanted = module.state_dict()
    missing = [name for name in wanted if not isinstance(weights.get(name), Tensor)]
    if missing:
        raise UserError(f"{source} lacks {len(missing)} of the encoder's {len(wanted)} tensors, such as {missing[0]}")
    for name, tensor in wanted.items():
        if weights[name].shape != tensor.shape:
            found, expected = tuple(weights[name].shape), tuple(tensor.shape)
            raise UserError(f"{source}: {name} has shape {found}, but its configuration needs {expected}")
    taken = {name: weights[name] for name in wanted}
    check_finite(taken, source)
    module.load_state_dict(taken)


def _is_name(name: Any) -> bool:
    return type(name) is str and name.isprintable() and len(name) < 500


def _from_namespace(args: argparse.Namespace) -> dict[str, Any]:
    """Convert an old-style flat namespace to the structure of the new configuration."""
    values = dict(vars(args))
    return {"model": {**values, "_name": values.get("arch")}, "task": values}
