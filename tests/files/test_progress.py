"""Progress: what a log file and a terminal get, and that no long step is without it."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tqdm import tqdm

from fairseq_skd import ngram
from fairseq_skd.alignment import output
from fairseq_skd.corpora import normalization
from fairseq_skd.corpora.labels import Labels, choose_units
from fairseq_skd.corpora.records import Record
from fairseq_skd.encoders.weight_files import load_safetensors, load_weights_only
from fairseq_skd.files import progress
from fairseq_skd.files.staging import staged
from fairseq_skd.files.subset import Subset, check_audio
from fairseq_skd.scoring import transcripts
from fairseq_skd.scoring.bootstrap import rate_interval
from fairseq_skd.search.greedy import Hypothesis
from tests.builders import letter_dictionary

RECORDS = [Record(f"{i}.wav", "GO ON AND SAY TEN", "train", "", "table.tsv", i + 2) for i in range(40)]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Read the lines on stderr; a carriage return begins each."""
    return [line.strip() for line in capsys.readouterr().err.splitlines() if line.strip()]


# ---- how it looks


def test_a_log_gets_the_first_and_the_last_line(at_once: None, capsys: pytest.CaptureFixture[str]) -> None:
    """pytest's stderr is no terminal."""
    assert [*progress.tracked("abc", "spelling", "letter")] == ["a", "b", "c"]
    first, last = lines(capsys)
    assert first.startswith("spelling: 1 of 3 (33 %), 00:00 elapsed, ")
    assert last.startswith("spelling: 3 of 3 (100 %), 00:00 elapsed, ") and last.endswith("letter/s")


def test_a_terminal_gets_a_bar_that_vanishes(at_once: None, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "STYLE", {"leave": False, "mininterval": 0})
    with progress.progress("reading", "B", 4_000_000, unit_scale=True) as step:
        step(1_000_000)
    shown = capsys.readouterr().err
    assert "reading:  25%|" in shown and "1.00M/4.00M" in shown
    assert "\n" not in shown and not shown.split("\r")[-1].strip()


def test_a_step_without_parts_says_what_it_does(at_once: None, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.working("thinking"):
        pass
    assert capsys.readouterr().err == "thinking ...\n"


def test_it_says_so_while_the_step_goes_on(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    said = ""
    until = time.monotonic() + 20
    with progress.working("thinking"):
        while not said and time.monotonic() < until:
            said = capsys.readouterr().err
    assert said == "thinking ...\n"


def test_short_work_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert [*progress.tracked(range(3), "counting", "item")] == [0, 1, 2]
    with progress.working("thinking"):
        pass
    assert capsys.readouterr().err == ""


def test_an_iterator_needs_a_total(at_once: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert [*progress.tracked(iter("ab"), "spelling", "letter", 2)] == ["a", "b"]
    assert "spelling: 2 of 2 (100 %)" in capsys.readouterr().err


def test_one_rank_of_a_distributed_training_shows_it(
    at_once: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        with progress.working(f"rank {rank}"):
            assert [*progress.tracked([1], f"items of {rank}", "item")] == [1]
    said = capsys.readouterr().err
    assert "rank 0" in said and "items of 0" in said and "1" not in re.sub("1 of 1|100|[0-9:.]+item/s", "", said)


def test_bars_that_draw_themselves_write_lines_into_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with tqdm(total=200, desc="decoding", unit="utterance", **progress.STYLE) as bar:
        for _ in range(200):
            bar.update()
    first, last = lines(capsys)
    assert first.startswith("decoding: 0 of 200 (0 %)") and last.startswith("decoding: 200 of 200 (100 %)")


def test_a_line_per_interval(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """tqdm's monitor wrote a second line. Here the minute is a fiftieth of a second."""
    assert progress.STYLE["mininterval"] == 60
    with tqdm(total=100, **(progress.STYLE | {"mininterval": 0.02, "maxinterval": 0.02})) as bar:
        assert bar.miniters == 1 and not bar.dynamic_miniters
        for _ in range(100):
            time.sleep(0.001)
            bar.update()
    assert len(lines(capsys)) <= 2 + (bar.last_print_t - bar.start_t) / 0.02


# ---- the steps that can take long


def write_staged(out: Path) -> None:
    with staged(out) as stage:
        for name in "abc":
            (stage / name).write_text(name)


def check_three_files(folder: Path) -> None:
    names = [f"{i}.wav" for i in range(3)]
    for name in names:
        soundfile.write(folder / name, np.zeros(800), 16000)
    check_audio(Subset(folder / "test.tsv", str(folder), names, [800] * 3), 16000)


def read_weights(folder: Path) -> None:
    file = folder / "weights.pt"
    torch.save({"model": {"a": torch.zeros(1000), "b": torch.zeros(2000)}}, file)
    load_weights_only(file)


def read_chain(folder: Path) -> None:
    file = folder / "old.pt"
    torch.save({"a": torch.zeros(3000)}, file, _use_new_zipfile_serialization=False)
    load_weights_only(file)


def read_safetensors(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3)}, folder / "model.safetensors")
    load_safetensors(folder / "model.safetensors")


def estimate_model(folder: Path) -> None:
    text = folder / "train.wrd"
    text.write_text("GO ON\nGO ON AND ON\n")
    ngram.main([str(text), "--out", str(folder / "3.arpa")])


def train_pieces(_: Path) -> None:
    choose_units(Labels("spm", 29), RECORDS)


STEPS: dict[str, Callable[[Path], Any]] = {
    "normalizing, upper: 40 of 40 (": lambda _: normalization.normalize(RECORDS, ("upper",)),
    "training 29 word pieces on 40 transcripts ...": train_pieces,
    "moving files: 3 of 3 (": lambda folder: write_staged(folder / "out"),
    "checking audio: 3 of 3 (": check_three_files,
    "reading weights.pt: ": read_weights,
    "reading old.pt: ": read_chain,
    "reading model.safetensors ...": read_safetensors,
    "drawing bootstrap samples: 70 of 70 (": lambda _: rate_interval([1, 0, 2], [4, 4, 4], resamples=70),
    "counting: 2 of 2 (": estimate_model,
    "estimating: 3 of 3 (": estimate_model,
    "writing: 3 of 3 (": estimate_model,
}


@pytest.mark.parametrize("line", STEPS)
def test_a_long_step_shows_its_progress(
    line: str, at_once: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    STEPS[line](tmp_path)
    assert any(shown.startswith(line) for shown in lines(capsys))


@pytest.mark.parametrize("read", [read_weights, read_chain])
def test_bytes_of_a_checkpoint_are_counted(
    read: Callable[[Path], None], at_once: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read(tmp_path)
    last = lines(capsys)[-1]
    assert ": 12." in last and last.endswith("B/s")  # kB: 3,000 numbers of 4 bytes, and the pickle


def test_spelling_out_and_scoring_show_their_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(transcripts._LATE, "delay", 0)
    hypotheses = [Hypothesis([5, 6], None)] * 7
    found = transcripts.transcribe_hypotheses(hypotheses, letter_dictionary(), "letter")
    transcripts.score(found, found)
    said = capsys.readouterr().err
    assert "spelling out: 0 of 7 (" in said and "scoring: 0 of 7 (" in said


def test_figures_show_their_progress(
    at_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output.figures, "draw_spikes", lambda *_: None)
    monkeypatch.setattr(output, "_save", lambda *_: None)
    example = output.Example(0, "a", "A", np.zeros(100, np.float32), 16000, 0.1, None, [], [])
    exit_ = {"exit_layer": 4, "layers": 4}
    output.write(tmp_path, {"teacher": exit_, "student": exit_, "offset": {"matched": 0}}, [example] * 2)
    assert "drawing spikes: 2 of 2 (" in capsys.readouterr().err
