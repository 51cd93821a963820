"""Small real inputs for tests: pretrained checkpoints, corpora of a few seconds, batches."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from fairseq.data import Dictionary
from fairseq.models import build_model
from fairseq.models.hubert.hubert import HubertConfig, HubertModel
from fairseq.models.wav2vec.wav2vec2 import Wav2Vec2Config, Wav2Vec2Model
from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
from omegaconf import OmegaConf

LETTERS = "|ETAOINSHRDLUMWCFGYPBVK'XJQZ"
CONVOLUTIONS = "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2"
BUCKETS = {"num_buckets": 32, "max_distance": 40, "gru_rel_pos": True}


def letter_dictionary() -> Dictionary:
    """Make fairseq's letter dictionary: <s> (the blank), <pad>, </s>, <unk>, then the letters."""
    dictionary = Dictionary()
    for letter in LETTERS:
        dictionary.add_symbol(letter)
    return dictionary


def architecture(**changes: Any) -> dict[str, Any]:
    """Describe an encoder; by default 4 layers x 32, group-norm extractor, post-LN."""
    return {
        "extractor_mode": "default",
        "encoder_layers": 4,
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 64,
        "encoder_attention_heads": 4,
        "conv_feature_layers": CONVOLUTIONS,
        "conv_pos": 16,
        "conv_pos_groups": 4,
        **changes,
    }


def pretrained_model(kind: str, seed: int = 0, **changes: Any) -> torch.nn.Module:
    """Build a pretraining model with random weights from fairseq's classes, or ours for WavLM."""
    torch.manual_seed(seed)
    values = architecture(**changes)
    if kind == "wavlm":
        from fairseq_skd.encoders.wavlm import WavLMConfig, WavLMModel

        model = WavLMModel(OmegaConf.merge(OmegaConf.structured(WavLMConfig()), {**BUCKETS, **values}))
    elif kind == "wav2vec2":
        cfg = OmegaConf.merge(OmegaConf.structured(Wav2Vec2Config()), {**values, "quantize_targets": True})
        model = Wav2Vec2Model(cfg)
    else:
        cfg = OmegaConf.merge(OmegaConf.structured(HubertConfig()), {**values, "label_rate": 50.0})
        task = OmegaConf.merge(OmegaConf.structured(HubertPretrainingConfig()), {"data": ".", "label_rate": 50.0})
        clusters = Dictionary()
        for cluster in range(5):
            clusters.add_symbol(str(cluster))
        model = HubertModel(cfg, task, [clusters])
    for name, parameter in model.encoder.named_parameters():
        # Norms and biases start at 1 and 0, which would hide a skipped or doubled norm.
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
        elif kind == "wavlm" and "self_attn" in name:  # nearly zero at initialisation
            parameter.data = torch.randn_like(parameter) * parameter.size(-1) ** -0.5
    return model.eval()


def write_pretrained(
    path: Path, kind: str = "hubert", style: str = "cfg", normalize: bool = False, seed: int = 0, **changes: Any
) -> Path:
    """Save a pretraining checkpoint with ``cfg`` (new) or ``args`` (old); a WavLM as Microsoft."""
    model = pretrained_model(kind, seed, **changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "wavlm":
        cfg = {**architecture(**BUCKETS), **changes, "relative_position_embedding": True, "normalize": normalize}
        torch.save({"cfg": cfg, "model": model.state_dict()}, path)
        return path
    dictionary = Dictionary()
    dictionary.add_symbol("0")
    values = architecture(**changes)
    if kind == "hubert":
        task = {"_name": "hubert_pretraining", "data": ".", "labels": ["km"], "label_rate": 50.0}
    else:
        task = {"_name": "audio_pretraining", "data": "."}
    task.update(normalize=normalize, sample_rate=16000)
    state: dict[str, Any] = {
        "args": None,
        "cfg": {"model": {"_name": kind, **values}, "task": task, "common": {"seed": 1}},
        "model": model.state_dict(),
        "criterion": None,
        "optimizer_history": [
            {"criterion_name": "X", "optimizer_name": "Y", "lr_scheduler_state": {}, "num_updates": 7}
        ],
        "task_state": {"dictionaries": [dictionary]} if kind == "hubert" else {},
        "extra_state": {"epoch": 1, "val_loss": np.float64(1.5), "train_iterator": {"epoch": 1}},
        "last_optimizer_state": None,
    }
    if style == "args":
        state["args"] = argparse.Namespace(arch=kind, **values, normalize=normalize, sample_rate=16000, data=".")
        del state["cfg"]
    torch.save(state, path)
    return path


def write_corpus(
    folder: Path, splits: dict[str, Sequence[tuple[str, float]]], seed: int = 0, sample_rate: int = 16000
) -> Path:
    """Write a manifest folder with audio. Each letter has its own pitch, in noise.

    Args:
        folder: where to write; audio goes into ``audio``.
        splits: split -> list of (transcript, seconds).
        seed: of the noise.
        sample_rate: in Hz.
    """
    rng = np.random.default_rng(seed)
    audio = folder / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    for split, utterances in splits.items():
        lines, units, words = [str(audio.resolve())], [], []
        for i, (text, seconds) in enumerate(utterances):
            samples = int(seconds * sample_rate)
            time = np.arange(samples) / sample_rate
            letter = np.array([LETTERS.index(symbol) for symbol in text.replace(" ", "|")])
            pitch = 150.0 + 90.0 * letter[np.arange(samples) * len(letter) // samples]
            wave = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.01 * rng.standard_normal(samples)
            name = f"{split}{i}.wav"
            soundfile.write(audio / name, wave.astype(np.float32), sample_rate, subtype="PCM_16")
            lines.append(f"{name}\t{samples}")
            units.append(" ".join(text.replace(" ", "|")) + " |")
            words.append(text)
        for suffix, content in (("tsv", lines), ("ltr", units), ("wrd", words)):
            (folder / f"{split}.{suffix}").write_text("\n".join(content) + "\n", encoding="utf-8")
    write_dictionary(folder)
    return folder


def write_dictionary(folder: Path) -> Path:
    """Write ``dict.ltr.txt``."""
    path = folder / "dict.ltr.txt"
    path.write_text("".join(f"{letter} 1\n" for letter in LETTERS), encoding="utf-8")
    return path


def batch(seconds: Sequence[float], texts: Sequence[str], normalize: bool = False, seed: int = 0) -> dict[str, Any]:
    """Make a padded fine-tuning batch as fairseq's tasks collate it."""
    lengths = [int(16000 * duration) for duration in seconds]
    source = torch.zeros(len(lengths), max(lengths))
    padding = torch.ones(len(lengths), max(lengths), dtype=torch.bool)
    dictionary = letter_dictionary()
    units = [[dictionary.index(symbol) for symbol in text.replace(" ", "|") + "|"] for text in texts]
    target = torch.full((len(units), max(map(len, units))), dictionary.pad())
    for i, (length, unit) in enumerate(zip(lengths, units, strict=True)):
        wave = 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(seed + i))
        source[i, :length] = (wave - wave.mean()) / wave.std() if normalize else wave
        padding[i, :length] = False
        target[i, : len(unit)] = torch.tensor(unit)
    return {
        "id": torch.arange(len(lengths)),
        "net_input": {"source": source, "padding_mask": padding},
        "target": target,
        "target_lengths": torch.tensor([len(unit) for unit in units]),
        "ntokens": sum(map(len, units)),
    }


def write_npm_package(folder: Path) -> Path:
    """Write a stand-in for the npm package onnxruntime-web: real names, no real content."""
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text('{"name": "onnxruntime-web", "version": "1.30.0"}')
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        (folder / "dist" / name).write_text(name)
    return folder


class CtcTask:
    """The part of a fairseq task that a model or a criterion uses."""

    blank_symbol = "<s>"

    def __init__(self, normalize: bool = False) -> None:
        self.target_dictionary = letter_dictionary()
        self.cfg = argparse.Namespace(sample_rate=16000, normalize=normalize)

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> torch.nn.Module:
        return build_model(cfg, self, from_checkpoint)


def model_config(w2v_path: Path | str | None, **changes: Any) -> Any:
    """Make ``cfg.model`` of skd_ctc as build_model gets it, below a root configuration."""
    from fairseq_skd.models.config import SkdCtcConfig

    model = {
        "_name": "skd_ctc",
        "w2v_path": str(w2v_path),
        "student_layers": [2],
        "normalize": False,
        "data": ".",
        "seed": 1,
        "ddp_backend": "legacy_ddp",
        **changes,
    }
    root = OmegaConf.create({"model": OmegaConf.merge(OmegaConf.structured(SkdCtcConfig()), model)})
    return root.model
