"""``--help`` of each command shows examples. All of them are run here, on small files."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import fairseq_skd
from fairseq_skd import ngram
from fairseq_skd.corpora.sources import SOURCES
from fairseq_skd.demo import __main__ as demo
from tests.builders import write_corpus, write_npm_package, write_pretrained
from tests.decoding.checkpoints import write_fine_tuned
from tests.end_to_end.training import CORPUS

REPOSITORY = Path(fairseq_skd.__file__).resolve().parents[1]
COMMANDS = ["manifest", *(f"manifest {source}" for source in SOURCES)]
COMMANDS += ["train", "infer", "transcribe", "score", "align", "report", "export", "ngram", "demo", "env", "__main__"]
# Trainings are cut short, and run without the GPUs that the example has.
SHORT = (
    *("optimization.max_update=2", "distributed_training.distributed_world_size=1", "common.fp16=false"),
    *("common.cpu=true", "dataset.num_workers=0"),
)
PROGRAMS = ("python -m fairseq_skd", "fairseq-hydra-train")


def module_of(command: str) -> str:
    name = command.split()[0]
    return "fairseq_skd.demo.__main__" if name == "demo" else f"fairseq_skd.{name}"


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module_of(command)).main([*command.split()[1:], "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def examples(text: str) -> list[str]:
    """The commands of a help text, continued lines joined."""
    lines = re.sub(r" *\\\n *", " ", text[text.index("\nexample") :]).splitlines()
    return [line.strip() for line in lines if line.startswith(tuple(f"  {program}" for program in PROGRAMS))]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data``, ``models`` and ``runs`` with what the examples read."""
    root = tmp_path_factory.mktemp("examples")
    splits = {**CORPUS, "test": [("IT IS", 1.0), ("GO ON", 0.9), ("NO", 0.7)]}
    manifests = write_corpus(root / "data" / "manifests", splits)
    (manifests / "lexicon.txt").write_text(
        "".join(f"{word}\t{' '.join(word)} |\n" for word in ("IT", "IS", "GO", "NO"))
    )
    _write_sources(root / "data", np.random.default_rng(1).normal(0, 0.1, 4 * 16000))
    for name in ("hubert_base_ls960", "hubert_mini"):
        write_pretrained(root / "models" / f"{name}.pt", encoder_layers=12)
    write_npm_package(root / "models" / "node_modules" / "onnxruntime-web")
    for name in ("skd", "kd", "ctc"):
        write_fine_tuned(root / "runs" / name / "checkpoint_best.pt", students=(6,), encoder_layers=12)
    state = torch.load(root / "runs" / "skd" / "checkpoint_best.pt", weights_only=True)
    for epoch in (1, 2):
        state["optimizer_history"] = [{"num_updates": 10 * epoch}]
        torch.save(state, root / "runs" / "skd" / f"checkpoint{epoch}.pt")
    ngram.main([str(manifests / "train.wrd"), "--out", str(manifests / "3gram.arpa")])
    log = '[2026-11-27 10:00:00,000][train_inner][INFO] - {"epoch": 1, "loss": "9.5", "num_updates": "10"}'
    (root / "runs" / "skd" / "hydra_train.log").write_text(f"{log}\n")
    for side, text in (("hypo", "IT IS"), ("ref", "IT IT")):
        (root / "runs" / "skd" / "test6").mkdir(exist_ok=True)
        (root / "runs" / "skd" / "test6" / f"{side}.word").write_text(f"{text} (None-0)\n")
    (manifests / "test.spk").write_text("ann\nann\nbob\n")
    (root / "data" / "names.txt").write_text("GO ON\t2\n")
    (root / "data" / "hyp.jsonl").write_text('{"path": "elsewhere/a.flac", "text": "go on"}\n')
    configs = root / "data" / "configs"
    configs.mkdir()
    yaml = (REPOSITORY / "config" / "finetune" / "hubert_mini.yaml").read_text()
    (configs / "hubert_mini.yaml").write_text(yaml)
    return root


def _write_sources(data: Path, noise: np.ndarray) -> None:
    """A folder per kind of source, with one or two utterances."""
    for folder in ("corpus", "LibriSpeech/train-clean-100/1/2", "kaldi/train", "kaldi/dev"):
        (data / folder).mkdir(parents=True)
    soundfile.write(data / "corpus" / "a.wav", noise[:16000], 16000)
    (data / "corpus" / "table.tsv").write_text("path\ttext\tsplit\na.wav\tGO ON\ttrain\n")
    chapter = data / "LibriSpeech" / "train-clean-100" / "1" / "2"
    soundfile.write(chapter / "1-2-0000.flac", noise[:16000], 16000)
    (chapter / "1-2.trans.txt").write_text("1-2-0000 GO ON\n")
    for split in ("train", "dev"):
        folder = data / "kaldi" / split
        soundfile.write(folder / "u.wav", noise[:16000], 16000)
        (folder / "wav.scp").write_text(f"u {folder / 'u.wav'}\n")
        (folder / "text").write_text("u GO ON\n")
    for split in ("train", "dev", "test"):
        for kind in ("stm", "sph"):
            (data / "TEDLIUM_release2" / split / kind).mkdir(parents=True)
        talk = data / "TEDLIUM_release2" / split
        soundfile.write(talk / "sph" / "t.sph", noise, 16000, subtype="PCM_16", format="NIST")
        (talk / "stm" / "t.stm").write_text("t 1 t 0.5 2.5 <o,f0,male> go on\n")
    _write_layouts(data, noise)


def _write_layouts(data: Path, noise: np.ndarray) -> None:
    """One utterance per split of each layout, in the file forms of the releases."""
    clip, mls, fleurs = (
        "c\tc.mp3\tGo on.\ten\n",
        "1_2_000000\tgo on\n",
        "1\tc.wav\tGo on.\tgo on\tg o | o n |\t16000\tMALE\n",
    )
    tables = {"ljspeech/metadata.csv": "LJ001-0001|Go on.|Go on.\n"}
    audio = ["ljspeech/wavs/LJ001-0001.wav", "lhotse/a.wav"]
    for split in ("train", "dev", "test"):
        tables[f"cv/en/{split}.tsv"] = f"client_id\tpath\tsentence\tlocale\n{clip}"
        tables[f"mls_english/{split}/transcripts.txt"] = mls
        tables[f"fleurs/en_us/{split}.tsv"] = fleurs
        tables[f"nemo/{split}_manifest.json"] = '{"audio_filepath": "c.wav", "duration": 1.0, "text": "go on"}\n'
        audio += [f"mls_english/{split}/audio/1/2/1_2_000000.flac", f"fleurs/en_us/audio/{split}/c.wav"]
    for split in ("train", "validation"):
        tables[f"audiofolder/{split}/metadata.csv"] = "file_name,transcription\na.wav,GO ON\n"
        audio.append(f"audiofolder/{split}/a.wav")
    for split in ("train-clean-5", "dev-clean-2"):
        source = {"type": "file", "channels": [0], "source": str(data / "lhotse" / "a.wav")}
        said = {"id": "a", "recording_id": "a", "start": 0, "duration": 1.0, "channel": 0, "text": "GO ON"}
        tables[f"lhotse/libri_recordings_{split}.jsonl"] = json.dumps({"id": "a", "sources": [source]}) + "\n"
        tables[f"lhotse/libri_supervisions_{split}.jsonl"] = json.dumps(said) + "\n"
    for name in (*audio, "nemo/c.wav", "cv/en/clips/c.mp3"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(data / name, noise[:16000], 16000)
    for name, text in tables.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(text)


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_shows_only_what_it_takes(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(f"manifest {source}", capsys)
    about_transcripts = ("--normalize", "--language", "--unit", "--dict", "--vocab-size", "--lexicon", ".ltr")
    assert {option in text for option in about_transcripts} == {source != "audio"}
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "demo"])
@pytest.mark.slow
def test_the_examples_run(command: str, places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each through a shell, from another folder."""
    shown = examples(help_of(command, capsys))
    assert shown
    for example in shown:
        if "kenlm" in example or "--phrases" in example:
            pytest.importorskip("flashlight.lib.text.decoder", reason="flashlight-text has no wheel for this Python")
        run(example, places, tmp_path)


def run(example: str, places: Path, tmp_path: Path) -> None:
    for folder in ("data", "models", "runs"):
        example = re.sub(rf"(?<=[ =])/{folder}\b", str(places / folder), example)
    if re.search(r"fairseq_skd\.(manifest|export)", example):  # refuses to replace files
        example = example.replace(f"--out {places}", f"--out {tmp_path}")
    if "fairseq_skd.align" in example:
        example += " align.resamples=100"
    if re.search(r"fairseq_skd\.train |hydra-train ", example) and "--cfg" not in example:
        example += f" {shlex.join(SHORT)}"
        example = example.replace(f"save_dir={places}", f"save_dir={tmp_path}")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["sh", "-c", example], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, f"{example}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_the_demos_example(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its steps, which take minutes: `make demo`."""
    (example,) = examples(help_of("demo", capsys))
    summary = {"exit_layer": 2, "layers": 4, "parameters": 10, "wer": 3.0, "cer": 1.0, "real_time_factor": 0.01}

    def steps(steps: object, out: Path, *_: object) -> None:
        for who in ("teacher", "student"):
            (out / f"decode-{who}").mkdir()
            (out / f"decode-{who}" / "summary.json").write_text(json.dumps(summary))

    monkeypatch.setattr(demo, "run_steps", steps)
    demo.main(shlex.split(example.replace("/runs", str(tmp_path)))[3:])
    assert str(tmp_path / "demo" / "report.html") in capsys.readouterr().out


def test_the_list_of_tools_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    package = REPOSITORY / "fairseq_skd"
    modules = [*package.glob("*.py"), package / "demo" / "__main__.py"]
    tools = {
        path.parent.name if path.stem == "__main__" else path.stem
        for path in modules
        if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
    } - {"fairseq_skd"}
    listed = re.findall(r"^  python -m fairseq_skd\.(\w+)   ", help_of("__main__", capsys), re.MULTILINE)
    assert set(listed) == tools == {command.split()[0] for command in COMMANDS} - {"__main__"}
