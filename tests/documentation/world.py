"""Make the files that the documentation names: corpora, encoders, fine-tuned checkpoints."""

import shutil
from pathlib import Path

import numpy as np
import soundfile
import torch
from fairseq.data import Dictionary

from fairseq_skd import manifest
from tests.builders import BUCKETS, LETTERS, write_npm_package, write_pretrained
from tests.decoding.checkpoints import write_fine_tuned
from tests.documentation.pages import REPOSITORY

LAYERS = {"encoder_layers": 12}
TEXTS = {
    "train": ["GO ON", "IT IS", "NO", "SO IT GOES", "A TEN", "EAT IT"],
    "valid": ["GO", "IT GOES"],
    "test": ["SO", "IT IS NO TEN", "ON"],
}
RATE = 16000


def build_models(folder: Path) -> None:
    """``models`` and ``runs``, which all pages share or copy."""
    write_pretrained(folder / "models" / "hubert_base_ls960.pt", **LAYERS)
    write_pretrained(folder / "models" / "WavLM-Base+.pt", "wavlm", **LAYERS, **BUCKETS)
    write_npm_package(folder / "models" / "node_modules" / "onnxruntime-web")
    for run, students in (("skd", (6,)), ("ctc", ())):
        (folder / "runs" / run).mkdir(parents=True)
        path = write_fine_tuned(folder / "runs" / run / "checkpoint_best.pt", students=students, **LAYERS)
        state = torch.load(path, weights_only=False)
        state["task_state"] = {"target_dictionary": Dictionary.load(str(REPOSITORY / "manifests" / "dict.ltr.txt"))}
        torch.save(state, path)


def build(folder: Path, models: Path) -> Path:
    """Make a page's folder; its commands run in ``here``."""
    work = folder / "here"
    work.mkdir(parents=True)
    (folder / "models").symlink_to(models / "models")
    shutil.copytree(models / "runs", folder / "runs")
    corpus, manifests = folder / "data" / "corpus", folder / "data" / "manifests"
    _write_corpus(corpus, work / "table.tsv")
    _write_kaldi(folder / "data" / "kaldi")
    _write_librispeech(folder / "data" / "LibriSpeech")
    _write_german(folder / "data" / "deutsch")
    _write_chinese(folder / "data" / "zhongwen")
    manifest.main(["table", str(work / "table.tsv"), "--audio-root", str(corpus), "--out", str(manifests)])
    for name, source in (("a.flac", "001.flac"), ("b.flac", "002.flac")):
        shutil.copy(corpus / "audio" / source, work / name)
    for name in ("config", "manifests", "experiments"):
        (work / name).symlink_to(REPOSITORY / name)
    return work


def _tone(path: Path, text: str, rng: np.random.Generator) -> None:
    """Each letter is a tone of its own in noise, 0.12 s long."""
    letters = np.repeat([LETTERS.index(symbol) for symbol in text.replace(" ", "|")], int(0.12 * RATE))
    wave = 0.3 * np.sin(2 * np.pi * (150 + 90 * letters) * np.arange(len(letters)) / RATE)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.pad(wave, 4000) + 0.01 * rng.standard_normal(len(wave) + 8000), RATE, subtype="PCM_16")


def _write_corpus(corpus: Path, table: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["path\tsplit\tspeaker\ttext"]
    for split, texts in TEXTS.items():
        for place, text in enumerate(texts):
            name = f"audio/{len(rows):03d}.flac"
            _tone(corpus / name, text, rng)
            rows.append(f"{name}\t{split}\t{split}-{'ab'[place % 2]}\t{text}")
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _write_kaldi(folder: Path) -> None:
    rng = np.random.default_rng(1)
    for split in ("train", "dev"):
        _tone(folder / "wav" / f"{split}.flac", "GO ON", rng)
        (folder / split).mkdir()
        (folder / split / "wav.scp").write_text(f"{split}-1 {folder}/wav/{split}.flac\n")
        (folder / split / "text").write_text(f"{split}-1 GO ON\n")


def _write_librispeech(folder: Path) -> None:
    rng = np.random.default_rng(2)
    for split in ("train-clean-100", "train-clean-360", "dev-clean", "test-clean"):
        chapter = folder / split / "19" / "198"
        _tone(chapter / "19-198-0000.flac", "GO ON", rng)
        (chapter / "19-198.trans.txt").write_text("19-198-0000 GO ON\n")


def _write_german(folder: Path) -> None:
    """A table as a spreadsheet writes it, with 48 kHz audio of ten speakers."""
    rng = np.random.default_rng(3)
    texts = ["Straße, Grüße!", "Er kommt um 8 Uhr.", "Ja, nein.", "Guten Morgen"]
    rows = ["audio,satz,sprecher"]
    for place in range(20):
        name = f"clips/{place}.wav"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, rng.normal(0, 0.1, 3 * 3 * RATE), 3 * RATE)
        rows.append(f'{name},"{texts[place // 10 + 2 * (place % 2)]}",person{place}')
    (folder / "clips.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _write_chinese(folder: Path) -> None:
    rng = np.random.default_rng(4)
    rows = ["path\ttext\tspeaker"]
    for place in range(20):
        name = f"clips/{place}.wav"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, rng.normal(0, 0.1, 2 * RATE), RATE)
        rows.append(f"{name}\t{['你好，世界。', '早上好！'][place // 10]}\tperson{place}")
    (folder / "clips.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
