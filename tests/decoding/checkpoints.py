"""Fine-tuned checkpoints with random weights, as fairseq saves them; readers of decoded files."""

import json
import shutil
from pathlib import Path
from typing import Any

import soundfile
import torch
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from omegaconf import OmegaConf

from fairseq_skd.compat import to_container
from fairseq_skd.models.skd_ctc import SkdCtc
from tests.builders import CtcTask, letter_dictionary, model_config, write_pretrained

TEXTS = [("A NO", 0.5), ("TEN", 0.9), ("TO BE", 0.5), ("EAT", 1.3), ("IT IS", 0.7)]
FULL, STUDENT = 4, 2
CONFIG = Path(__file__).parents[2] / "config" / "decode"
NAMES = ("hypo.word", "hypo.units", "ref.word", "ref.units")
REFERENCES = {
    "ref.word": "A NO (None-0)\nTEN (None-1)\nTO BE (None-2)\nEAT (None-3)\nIT IS (None-4)\n",
    "ref.units": "A | N O | (None-0)\nT E N | (None-1)\nT O | B E | (None-2)\nE A T | (None-3)\nI T | I S | (None-4)\n",
}


def write_fine_tuned(path: Path, kind: str = "hubert", students: tuple[int, ...] = (STUDENT,), **changes: Any) -> Path:
    """Write a checkpoint with random weights, whose best symbol changes over time.

    ``changes`` are keys of the encoder.
    """
    pretrained = write_pretrained(path.with_suffix(".pretrained.pt"), kind, **changes)
    cfg = model_config(pretrained, normalize=changes.get("normalize", False), student_layers=list(students))
    torch.manual_seed(3)
    model = SkdCtc.build_model(cfg, CtcTask(normalize=changes.get("normalize", False)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".proj.weight") and "encoder.layers" not in name:
                parameter.mul_(8)
    name = "hubert_pretraining" if kind == "hubert" else "audio_finetuning"
    root = {"model": to_container(cfg), "common": {"seed": 1, "tpu": False}, "task": TASK_DATACLASS_REGISTRY[name]()}
    config = to_container(OmegaConf.create(root))
    task = config["task"]
    task.update({"_name": name, "data": "/gone", "normalize": changes.get("normalize", False)})
    if kind == "hubert":  # settings for training on long audio: decoding must not crop
        task.update({"fine_tuning": True, "max_sample_size": 8000, "random_crop": True, "label_dir": "/gone"})
    else:
        task.update({"labels": "ltr", "max_sample_size": 8000, "min_sample_size": 9000})
    config["model"]["w2v_path"] = "/gone.pt"
    task_state = {"target_dictionary": letter_dictionary()}
    torch.save({"args": None, "cfg": config, "model": model.state_dict(), "task_state": task_state}, path)
    pretrained.unlink()
    return path


def edit_checkpoint(path: Path, copy: Path, **sections: dict[str, Any]) -> Path:
    """Copy a checkpoint and change keys of its configuration."""
    state = torch.load(path, weights_only=True)
    for section, values in sections.items():
        state["cfg"][section].update(values)
    torch.save(state, copy)
    return copy


def set_constant_symbols(checkpoint: Path, copy: Path, symbols: dict[str, str]) -> Path:
    """Copy a checkpoint so that each head always outputs one symbol: parameter prefix -> symbol."""
    state = torch.load(checkpoint, weights_only=True)
    for prefix, symbol in symbols.items():
        state["model"][f"{prefix}.proj.weight"].zero_()
        state["model"][f"{prefix}.proj.bias"] = torch.eye(32)[letter_dictionary().index(symbol)]
    torch.save(state, copy)
    return copy


def read_files(folder: str | Path = "out") -> dict[str, bytes]:
    return {name: Path(folder, name).read_bytes() for name in NAMES}


def read_summary(folder: str | Path = "out") -> dict[str, Any]:
    return json.loads(Path(folder, "summary.json").read_text())


def damaged(corpus: Path, folder: Path, *indices: int) -> Path:
    """Copy the corpus and damage audio files: they decode to less than their headers state.

    The last one of several has no header at all.
    """
    shutil.copytree(corpus, folder)
    lines = (folder / "test.tsv").read_text().splitlines()
    for index in indices:
        wave, rate = soundfile.read(folder / "audio" / f"test{index}.wav")
        file = folder / "audio" / f"test{index}.flac"
        soundfile.write(file, wave, rate)
        content = file.read_bytes()
        file.write_bytes(content[:200] + bytes(len(content) - 200))
        lines[index + 1] = lines[index + 1].replace(".wav", ".flac")
    if len(indices) > 1:
        file.write_bytes(bytes(1000))
    (folder / "test.tsv").write_text("\n".join([str(folder / "audio"), *lines[1:]]) + "\n")
    return folder
