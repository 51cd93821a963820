"""Read folders of fine-tuned Hugging Face models (HubertForCTC, Wav2Vec2ForCTC, WavLMForCTC)."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from torch import Tensor

from fairseq_skd.encoders.huggingface import CONFIG, read_encoder, read_json, weight_files
from fairseq_skd.encoders.pretrained import KINDS
from fairseq_skd.errors import UserError, shown
from fairseq_skd.files.units import WORD_END, WORD_MARK, is_symbol

logger = logging.getLogger(__name__)

VOCABULARY, ADDED = "vocab.json", "added_tokens.json"
TOKENIZER, SPECIAL = "tokenizer_config.json", "special_tokens_map.json"
# fairseq sets this task up when it loads an export of the folder.
_TASK = {"_name": "audio_finetuning", "data": "."}
_NEVER = -1e4  # bias of a symbol that fairseq's dictionaries have and the model lacks


def load_fine_tuned(folder: Path) -> tuple[dict[str, Any], Path]:
    """Read a fine-tuned model as if it were a checkpoint of ``skd_ctc`` without students.

    Returns:
        the checkpoint, in the form of
        :func:`~fairseq_skd.encoders.checkpoint.load_checkpoint`; and the file of the weights, or
        the first of several.

    Raises:
        UserError: a file is missing or damaged, or the folder holds another model, or a variant
            that fairseq's classes do not support.
    """
    source = f"folder {folder}"
    config = read_json(folder / CONFIG)
    _refuse_others(config, source)
    file = folder / weight_files(folder, source)[0]
    encoder = read_encoder(folder, config, source)
    names = [name for name in ("lm_head.weight", "lm_head.bias") if name in encoder.weights]
    head = {name.removeprefix("lm_head."): encoder.weights.pop(name) for name in names}
    if [head[part].dim() if part in head else None for part in ("weight", "bias")] != [2, 1]:
        raise UserError(f"{source}: its CTC head (lm_head) is missing or damaged: give the folder of a ...ForCTC model")
    outputs = head["weight"].size(0)
    vocabulary, blank = _read_vocabulary(folder, outputs, config.get("pad_token_id", 0))
    if any(tensor.size(0) != len(vocabulary) for tensor in head.values()):
        raise UserError(
            f"{source}: its CTC head (lm_head) has {outputs} outputs, but {VOCABULARY} has {len(vocabulary)} symbols: "
            f"give the tokenizer that the model was trained with"
        )
    rows, dictionary = _dictionary(vocabulary, blank, folder)
    weights = {f"w2v_encoder.w2v_model.{name}": tensor for name, tensor in encoder.weights.items()}
    weights |= {f"w2v_encoder.proj.{part}": _select(tensor, rows) for part, tensor in head.items()}
    pieces = any(symbol.startswith(WORD_MARK) for symbol in dictionary.symbols)
    args = encoder.to_w2v_args()
    cfg = {
        "model": {"_name": "skd_ctc", "student_layers": [], "normalize": encoder.normalize, "w2v_args": args},
        "task": {**_TASK, "labels": "spm" if pieces else "ltr", **args["task"]},
        "criterion": {"post_process": "sentencepiece" if pieces else "letter"},
    }
    state = {"cfg": cfg, "left_out": {}, "model": weights, "task_state": {"target_dictionary": dictionary}}
    return {**state, "normalize_said_by": encoder.normalize_said_by}, file


def _refuse_others(config: Mapping[str, Any], source: str) -> None:
    kind, classes = config.get("model_type"), config.get("architectures")
    if kind not in KINDS or not isinstance(classes, list) or not str(next(iter(classes), "")).endswith("ForCTC"):
        raise UserError(
            f"{source} holds a Hugging Face model of type {shown(kind or 'unknown')}, class {shown(classes)}, but a "
            f"HubertForCTC, Wav2Vec2ForCTC or WavLMForCTC is needed"
        )


def _read_vocabulary(folder: Path, outputs: int, blank: Any) -> tuple[list[str], int]:
    """Return the symbols by index, spelt as fairseq spells word ends and unknown symbols.

    Args:
        folder: the model's folder.
        outputs: V, of the CTC head. Many models have outputs for ``<s>`` and ``</s>``, which only
            ``added_tokens.json`` numbers.
        blank: ``pad_token_id`` of ``config.json``.

    Returns:
        the symbols; and the checked index of the blank.
    """
    file = folder / VOCABULARY
    if not file.is_file():
        raise UserError(f"folder {folder} has no {VOCABULARY}: save the model's tokenizer there")
    indices = read_json(file)
    if indices and all(isinstance(part, dict) for part in indices.values()):
        raise UserError(
            f"{file} has one vocabulary per language ({shown(', '.join(indices), 60)}), as MMS, which is not "
            f"supported: fine-tune with the pretrained model instead (model.w2v_path)"
        )
    if outputs > len(indices) and (folder / ADDED).is_file():
        indices = {**read_json(folder / ADDED), **indices}
    symbols = sorted(indices, key=lambda symbol: indices[symbol]) if _are_counts(indices.values()) else []
    if not symbols or [indices[symbol] for symbol in symbols] != list(range(len(symbols))):
        raise UserError(f"{file} does not number its symbols from 0")
    tokens = _read_tokens(folder)
    _check_blank(blank, symbols, tokens.get("pad_token"), folder)
    symbols = _respelt(symbols, tokens, folder)
    for symbol in symbols:
        if not is_symbol(symbol):
            raise UserError(
                f"{file}: the symbol {shown(ascii(symbol))} is empty, or has a space or a control character"
            )
    return symbols, blank


def _read_tokens(folder: Path) -> dict[str, Any]:
    """Read which symbols have a meaning, and the tokenizer's other settings.

    As in transformers, ``special_tokens_map.json`` wins in folders that were written before
    ``tokenizer_config.json`` had ``added_tokens_decoder``.
    """
    tokenizer, special = (
        read_json(folder / name) if (folder / name).is_file() else {} for name in (TOKENIZER, SPECIAL)
    )
    both = {**special, **tokenizer} if "added_tokens_decoder" in tokenizer else {**tokenizer, **special}
    # transformers' AddedToken is a dict
    return {key: part.get("content") if isinstance(part, dict) else part for key, part in both.items()}


def _check_blank(blank: Any, symbols: list[str], token: Any, folder: Path) -> None:
    """Check that configuration and tokenizer have the same blank."""
    where = f"{folder / CONFIG}: pad_token_id={shown(blank)}"
    if type(blank) is not int or not 0 <= blank < len(symbols):
        raise UserError(f"{where} is no index of {VOCABULARY}")
    other = next((sign for sign in (token, "<pad>", "[PAD]") if isinstance(sign, str) and sign in symbols), None)
    if other is not None and symbols[blank] != other:
        raise UserError(
            f"{where} makes {shown(symbols[blank])!r} the blank, but the tokenizer's is {shown(other)!r}, index "
            f"{symbols.index(other)}: set pad_token_id to the index of the blank, and pad_token in {TOKENIZER} to its "
            f"symbol"
        )


def _respelt(symbols: list[str], tokens: Mapping[str, Any], folder: Path) -> list[str]:
    """Spell the tokenizer's word delimiter as ``|`` and its unknown symbol as ``<unk>``."""
    spelling = {}
    for key, ours in (("word_delimiter_token", WORD_END), ("unk_token", "<unk>")):
        token = tokens.get(key, ours)
        if token != ours and isinstance(token, str) and token in symbols:
            if ours in symbols:
                raise UserError(
                    f"{folder}: its tokenizer has {key}={shown(token)}, but {VOCABULARY} has {ours} as well, which is "
                    f"not supported"
                )
            spelling[token] = ours
    if tokens.get("do_lower_case") is True and any(symbol != symbol.lower() for symbol in symbols):
        logger.warning(
            "%s: do_lower_case=true: transformers writes the text of this model in lower case, but its symbols are "
            "upper case, and so are texts here",
            folder / TOKENIZER,
        )
    return [spelling.get(symbol, symbol) for symbol in symbols]


def _are_counts(values: Any) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def _dictionary(vocabulary: list[str], blank: int, folder: Path) -> tuple[list[int | None], Dictionary]:
    """Number the symbols as fairseq does: ``<s>`` (the blank), ``<pad>``, ``</s>``, ``<unk>``, ...

    Returns:
        the row of the head per symbol, None if the model lacks the symbol; and the dictionary.
    """
    row: dict[str, int] = {symbol: index for index, symbol in enumerate(vocabulary) if index != blank}
    # If <pad> is the blank, the model's own <s>, which CTC never uses, takes its place.
    unused = "<s>" if "<pad>" not in row else "<pad>"
    rows = [blank, *(row.pop(symbol, None) for symbol in (unused, "</s>", "<unk>"))]
    dictionary = Dictionary()
    if clash := next((symbol for symbol in row if symbol in dictionary.symbols), None):
        raise UserError(f"{folder / VOCABULARY}: {clash} is neither the blank nor free for it, which is not supported")
    for symbol in row:
        dictionary.add_symbol(symbol)
    return [*rows, *row.values()], dictionary


def _select(tensor: Tensor, rows: list[int | None]) -> Tensor:
    """Take rows of a head's weight (V, C) or bias (V,)."""
    absent = torch.full_like(tensor[0], 0.0 if tensor.dim() == 2 else _NEVER)
    return torch.stack([absent if row is None else tensor[row] for row in rows])
