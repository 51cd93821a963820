"""Several values per key: the grammar, what is run again, and the command."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fairseq_skd import infer
from fairseq_skd.cli import quote_texts
from fairseq_skd.decoding import decode as decoding
from fairseq_skd.decoding import multirun
from fairseq_skd.decoding.config import Settings
from fairseq_skd.decoding.decode import SubsetLogits
from fairseq_skd.decoding.multirun import Run, combinations, folder_name, run_all
from fairseq_skd.errors import UserError, run_command
from tests.decoding.checkpoints import damaged, read_files

pytestmark = pytest.mark.usefixtures("here")


def test_combinations() -> None:
    found = combinations(["task.data='/a,b'", "decoding.lmweight=1,2.5", "decoding.wordscore=-1,0", "common.cpu=true"])
    swept = [(values["decoding.lmweight"], values["decoding.wordscore"]) for values, _ in found]
    assert swept == [("1", "-1"), ("1", "0"), ("2.5", "-1"), ("2.5", "0")]
    assert found[2][1] == ["task.data='/a,b'", "decoding.lmweight=2.5", "decoding.wordscore=-1", "common.cpu=true"]
    assert [values["decoding.beam"] for values, _ in combinations(["decoding.beam=range(10,40,10)"])] == [
        "10",
        "20",
        "30",
    ]


def test_paths_can_be_swept() -> None:
    overrides = quote_texts(
        ["dataset.gen_subset=valid,test", "common_eval.path=/a b/é.pt,~/c.pt"], Settings.free_texts(), several=True
    )
    found = combinations(overrides)
    assert [values["dataset.gen_subset"] for values, _ in found] == ["valid", "valid", "test", "test"]
    assert found[1][1] == ["dataset.gen_subset='valid'", "common_eval.path='~/c.pt'"]
    assert folder_name(found[0][0]) == "gen_subset=valid,path=_a_b_é.pt"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["decoding.beam=5"], r"--multirun: no key has several values: give some, such as decoding\.lmweight=1,2,3"),
        (["decoding.beam=[5"], r"--multirun decoding\.beam=\[5: "),
    ],
)
def test_nothing_to_sweep(overrides: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        combinations(overrides)
    assert "\n" not in str(caught.value)


class Searches:
    """Fake encoder and search: each run writes a given summary, or fails if asked.

    ``begun`` lists the runs that began. A file counts them, since searches may run in other
    processes.
    """

    def __init__(
        self, wer: dict[str, float], failing: str | None = None, partial: str = "", seconds: float = 0.0
    ) -> None:
        self.wer, self.failing, self.partial, self.log = wer, failing, partial, Path("log").absolute()
        self.seconds = seconds  # duration of a search that does not fail

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        labels = SimpleNamespace(reference=())
        monkeypatch.setattr(
            multirun, "prepare", lambda settings: SimpleNamespace(common_eval=settings.common_eval, data=labels)
        )
        monkeypatch.setattr(multirun, "search_and_write", self.run)
        monkeypatch.setattr(SubsetLogits, "computed", lambda _: SubsetLogits([], 0, "cpu", 1, {}))

    def run(self, settings: Settings, _: SubsetLogits) -> dict[str, Any]:
        folder = Path(str(settings.common_eval.results_path))
        with self.log.open("a") as log:
            log.write(folder.name)
        if folder.name == self.failing:
            raise UserError("lexicon l does not exist")
        time.sleep(self.seconds)
        folder.mkdir(exist_ok=True)
        left_out = [{"file": "/a.wav", "line": 2, "reason": "broken"}] if folder.name in self.partial else []
        summary = {"wer": self.wer[folder.name], "cer": 1.0, "not_decoded": left_out}
        (folder / "summary.json").write_text(json.dumps(summary))
        return summary

    @property
    def begun(self) -> str:
        return self.log.read_text()


def runs(names: str, here: Path, **sections: dict[str, Any]) -> list[Run]:
    values = {"task": {"data": str(here)}, "common_eval": {"path": str(here / "c.pt")}, **sections}
    settings = Settings.read(values)
    return [Run({"decoding.lmweight": name}, into(settings, here / name), here / name) for name in names]


def into(settings: Settings, folder: Path) -> Settings:
    """Change the results folder of settings."""
    section = dataclasses.replace(settings.common_eval, results_path=str(folder))
    return dataclasses.replace(settings, common_eval=section)


def test_a_table_and_no_second_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "c.pt").write_text("weights")
    searches = Searches({"a": 30.0, "b": 10.0, "c": 20.0})
    searches.stand_in(monkeypatch)
    rows, _ = run_all(runs("ab", here), here, jobs=1)
    assert searches.begun == "ab"
    assert [(row["decoding.lmweight"], row["wer"]) for row in rows] == [("b", 10.0), ("a", 30.0)]
    assert [row["wer"] for row in run_all(runs("abc", here), here, jobs=2)[0]] == [10.0, 20.0, 30.0]
    assert searches.begun == "abc"
    lines = (here / "multirun.tsv").read_text().splitlines()
    assert lines[0] == "wer\tcer\tdecoding.lmweight\tfolder"
    assert lines[1] == f"10.0\t1.0\tb\t{here}/b"
    later = time.time() + 10
    os.utime(here / "c.pt", (later, later))  # the checkpoint changed
    run_all(runs("b", here), here, jobs=1)
    assert searches.begun == "abcb"


@pytest.mark.faults
def test_a_run_that_left_out_a_file_does_not_end_the_others(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F29: it is in the table, and the next call repeats it: the file may be repaired by then."""
    searches = Searches({"a": 30.0, "b": 10.0, "c": 20.0}, partial="ab")
    searches.stand_in(monkeypatch)
    rows, left_out = run_all(runs("abc", here), here, jobs=1)
    assert [row["wer"] for row in rows] == [10.0, 20.0, 30.0]
    assert left_out == [{"file": "/a.wav", "line": 2, "reason": "broken"}]
    searches.partial = ""
    assert run_all(runs("abc", here), here, jobs=1)[1] == []
    assert searches.begun == "abcab"


def test_other_settings_are_run_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = Searches({"a": 30.0})
    searches.stand_in(monkeypatch)
    run_all(runs("a", here), here, jobs=1)
    run_all(runs("a", here, decoding={"beam": 5}), here, jobs=1)
    assert searches.begun == "aa"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failure_stops_what_has_not_begun(here: Path, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    searches = Searches(dict.fromkeys("acdefghijklm", 30.0), failing="b", seconds=0.5)
    searches.stand_in(monkeypatch)
    with pytest.raises(UserError, match="^lmweight=b: lexicon l does not exist$"):
        run_all(runs("abcdefghijklm", here), here, jobs)
    assert searches.begun == "ab" if jobs == 1 else len(searches.begun) < 13
    assert not (here / "multirun.tsv").exists()
    with pytest.raises(UserError, match="two combinations would have the same folder"):
        run_all(runs("aa", here), here, jobs=1)


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.slow
def test_the_encoder_runs_once_for_all_searches(
    corpus: Path, hubert: Path, wav2vec2: Path, here: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    """Once per checkpoint, exit and subset; each combination writes the files of a single run."""
    data = shutil.copytree(corpus, here / "data")
    for name in ("tsv", "ltr"):
        lines = (data / f"test.{name}").read_text().splitlines(keepends=True)
        (data / f"few.{name}").write_text("".join(lines[:3] if name == "tsv" else lines[:2]))
    searches, encoder_runs = here / "searches", []
    run_encoder, search = decoding.run, multirun.search_and_write

    def counted_run(recognizer: Any, utterances: Any, *rest: Any) -> Any:
        encoder_runs.append((Path(recognizer.path), recognizer.exits, utterances.manifest.stem))
        return run_encoder(recognizer, utterances, *rest)

    def counted_search(plan: Any, frames: SubsetLogits) -> Any:
        with searches.open("a") as file:
            file.write(f"{plan.folder.name}\n")
        return search(plan, frames)

    monkeypatch.setattr(decoding, "run", counted_run)
    monkeypatch.setattr(multirun, "search_and_write", counted_search)
    swept = []
    for path, layer, subset, weight in itertools.product((hubert, wav2vec2), (2, 4), ("test", "few"), (0.0, -1.0)):
        folder = here / "out" / str(len(swept))
        settings = Settings.read(
            {
                "task": {"data": str(data)},
                "common_eval": {"path": str(path), "results_path": str(folder)},
                "dataset": {"gen_subset": subset, "num_workers": 0},
                "decoding": {"layer": layer, "blankweight": weight},
            }
        )
        swept.append(Run({"number": str(len(swept))}, settings, folder))
    rows, _ = run_all(swept, here / "out", jobs)
    assert encoder_runs == list(itertools.product((hubert, wav2vec2), ((2,), (4,)), ("test", "few")))
    assert sorted(searches.read_text().split(), key=int) == [str(number) for number in range(16)]
    assert run_all(swept, here / "out", jobs)[0] == rows
    assert len(encoder_runs) == 8 and len(searches.read_text().split()) == 16, "nothing was run again"
    for run in swept:
        own = here / "alone" / run.folder.name
        decoding.decode(into(run.settings, own))
        assert read_files(run.folder) == read_files(own)
        together, alone = (json.loads((folder / "summary.json").read_text()) for folder in (run.folder, own))
        for timed in ("decode_seconds", "real_time_factor"):
            assert together.pop(timed) > 0 and alone.pop(timed) > 0
        assert together == alone and alone["threads"] == 2


@pytest.mark.faults
@pytest.mark.slow
def test_audio_that_cannot_be_read_is_left_out_of_every_search(corpus: Path, hubert: Path, here: Path) -> None:
    """F29, with one run of the encoder."""
    data = damaged(corpus, here / "data", 1, 3)
    common = {"path": str(hubert)}
    swept = runs("ab", here, task={"data": str(data)}, common_eval=common, dataset={"num_workers": 0})
    _, left_out = run_all(swept, here, jobs=2)
    assert [(one["file"], one["line"]) for one in left_out] == [
        (f"{data}/audio/test1.flac", 3),
        (f"{data}/audio/test3.flac", 5),
    ]
    assert [run.summary() for run in swept] == [None, None], "both are run again by the next call"


def test_leftovers_of_a_killed_call_are_removed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Searches({"a": 30.0, "b": 1.0}).stand_in(monkeypatch)
    leftover = here / ".logits-killed"
    for names in ("ab", "ab"):  # also where nothing is left to run
        leftover.mkdir()
        (leftover / "1.pt").write_text("logits")
        run_all(runs(names, here), here, jobs=1)
        assert not list(here.glob(".*"))


@pytest.mark.slow
def test_the_command(corpus: Path, hubert: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    arguments = ["-m", f"task.data={corpus}", f"common_eval.path={hubert}"]
    arguments += ["dataset.num_workers=0", "common_eval.results_path=out"]
    infer.main([*arguments, "decoding.layer=0,2"])
    first = capsys.readouterr().out.splitlines()
    assert first[0].split() == ["wer", "cer", "decoding.layer"]
    assert {line.split()[-1] for line in first[1:3]} == {"0", "2"}
    assert first[3] == f"2 runs, lowest WER first: {Path.cwd()}/out/multirun.tsv"
    exits = [json.loads(Path(f"out/layer={layer}/summary.json").read_text())["exit_layer"] for layer in (0, 2)]
    assert exits == [4, 2]
    monkeypatch.setattr(multirun, "prepare", None)  # nothing is run again
    infer.main([*arguments, "decoding.layer=0,2"])
    assert capsys.readouterr().out.splitlines() == first
    with pytest.raises(UserError, match=r"decoding\.beam=0 is out of range"):
        infer.main([*arguments, "decoding.beam=5,0"])
    with pytest.raises(UserError, match=r"--jobs 0 is out of range"):
        infer.main([*arguments, "--jobs", "0"])


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_searches_end_with_their_parent_process(
    here: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X8: they continued after SIGTERM."""

    def endless(settings: Settings, _: SubsetLogits) -> None:
        """Write a file with its process, then run for a minute."""
        name = f"{settings.common_eval.results_path}.pid"
        Path(f"{name}.new").write_text(str(os.getpid()))
        os.rename(f"{name}.new", name)
        time.sleep(60)

    Searches({}).stand_in(monkeypatch)
    monkeypatch.setattr(multirun, "search_and_write", endless)
    parent = os.fork()
    if not parent:
        status = 99
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
            status = run_command("fairseq_skd.infer", lambda: run_all(runs("abc", here), here, jobs=2) and None)
        finally:
            os._exit(status)  # also after an interrupt between two calls: this is a copy of pytest
    deadline = time.monotonic() + 120
    while len(list(here.glob("*.pid"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    told = time.monotonic()
    os.kill(parent, number)
    assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == 130
    assert time.monotonic() - told < 10
    for file in here.glob("*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)
    assert len(list(here.glob("*.pid"))) == 2, "the third was not begun"
    assert not list(here.glob(".logits-*"))


def test_encoder_and_searches_show_their_progress(
    corpus: Path, hubert: Path, here: Path, at_once: None, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--multirun", f"task.data={corpus}", f"common_eval.path={hubert}"]
    infer.main([*arguments, "dataset.num_workers=0", "decoding.blankweight=0,-1"])
    said = capsys.readouterr().err
    assert "running the encoder: 5 of 5 (100 %)" in said
    assert "searching: 2 of 2 (100 %)" in said
    assert "decoding: " not in said  # one at a time
