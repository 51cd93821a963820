"""The command in its own process: exit status, streams, and leftovers when it is killed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fairseq_skd import manifest

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(manifest.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def test_a_refusal_in_its_own_process(corpus: Path, tmp_path: Path):
    table = corpus.parent / "bad.csv"
    table.write_text("path,text\na.wav,go\n")
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "fairseq_skd.manifest",
        "table",
        table,
        "--audio-root",
        corpus,
        "--out",
        tmp_path / "out",
    ]
    refused = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stdout == "" and "Traceback" not in refused.stderr
    assert "fairseq_skd.manifest: the table is refused\ncharacter outside the alphabet (1)" in refused.stderr
    assert f"{table}:2  a.wav  g o; write it in upper case" in refused.stderr


def test_the_command_imports_neither_torch_nor_fairseq(three: Path, corpus: Path, tmp_path: Path):
    """Python's ``-X importtime`` lists the imports."""
    command: list[str | Path] = [sys.executable, "-X", "importtime", "-m", "fairseq_skd.manifest", "table", three]
    command += ["--audio-root", corpus, "--out", tmp_path / "out"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and "written to" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert {"fairseq_skd", "fairseq_skd.corpora.validation", "numpy"} <= imported
    slow = {"torch", "fairseq", "soxr", "sentencepiece", "tqdm", "multiprocessing"}
    assert not {name for name in imported if name.split(".")[0] in slow}


def test_the_call_of_earlier_versions_is_answered(three: Path, corpus: Path, tmp_path: Path):
    command: list[str | Path] = [sys.executable, "-m", "fairseq_skd.manifest", three, "--audio-root", corpus]
    refused = subprocess.run([*command, "--out", tmp_path / "out"], env=ENVIRONMENT, capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (
        "python -m fairseq_skd.manifest: error: name the kind of source first: "
        "table, librispeech, tedlium, kaldi, commonvoice, ljspeech, mls, fleurs, audiofolder, nemo, lhotse, audio"
    )


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def long_run(write_table, corpus: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the command with two workers, and yield it in the middle of its work."""
    wave = np.random.default_rng(3).normal(0, 0.1, 8000 * 10)
    soundfile.write(corpus / "long.wav", wave, 8000)
    for index in range(1000):  # many seconds of work if nobody ends it
        os.link(corpus / "long.wav", corpus / f"{index}.wav")
    table = write_table(*((f"{index}.wav", "GO", "train") for index in range(1000)))
    out = tmp_path / "new" / "out"
    command: list[str | Path] = [sys.executable, "-m", "fairseq_skd.manifest", "table", table, "--audio-root", corpus]
    command += ["--out", out, "--resample", "--jobs", "2"]
    # Background jobs of a shell ignore SIGINT, and their children inherit that.
    with subprocess.Popen(
        command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_interrupts
    ) as process:
        deadline = time.monotonic() + 60
        while not list(out.glob(".staged-*/files/audio_16khz/*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_an_interrupt_leaves_nothing(long_run, tmp_path: Path, number: signal.Signals):
    long_run.send_signal(number)
    _, errors = long_run.communicate(timeout=60)
    assert long_run.returncode == 130 and errors.splitlines()[-1] == "fairseq_skd.manifest: interrupted"
    assert "Traceback" not in errors
    assert not (tmp_path / "new").exists()


@pytest.mark.faults
@pytest.mark.slow
def test_after_kill_9_the_next_run_cleans_up(long_run, three: Path, corpus: Path, tmp_path: Path):
    """X8: the workers end by themselves, and the next run removes the staged files."""
    long_run.kill()
    long_run.communicate(timeout=60)  # ends with the last process that holds its stderr
    out = tmp_path / "new" / "out"
    assert list(out.glob(".staged-*/files/audio_16khz/*"))
    manifest.main(["table", str(three), "--audio-root", str(corpus), "--out", str(out)])
    assert not list(out.glob(".staged-*")) and (out / "train.tsv").is_file()


@pytest.mark.faults
def test_a_full_disk_names_the_file(three: Path, corpus: Path, tmp_path: Path):
    """X9: the message named the output folder."""
    shell = f"ulimit -f 0; exec {sys.executable} -m fairseq_skd.manifest table {three} --audio-root {corpus} --out out"
    refused = subprocess.run(["bash", "-c", shell], env=ENVIRONMENT, capture_output=True, text=True, cwd=tmp_path)
    assert refused.returncode == 2
    named = r"fairseq_skd\.manifest: out/\.staged-\w+/files/\w+\.\w+: File too large; out is unchanged"
    assert re.fullmatch(named, refused.stderr.splitlines()[-1])
    assert not (tmp_path / "out").exists()
