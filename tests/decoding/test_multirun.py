"""Several values at once: the grammar, what is run again, and the command."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fairseq_skd import infer
from fairseq_skd.cli import quote_texts
from fairseq_skd.decoding import multirun
from fairseq_skd.decoding.config import Settings
from fairseq_skd.decoding.multirun import Run, combinations, folder_name, run_all
from fairseq_skd.errors import UserError, run_command
from tests.decoding.checkpoints import CONFIG

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


def test_names_of_files_are_swept_too() -> None:
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
        (["decoding.beam=5"], r"--multirun: no key has several values, such as decoding\.lmweight=1,2,3"),
        (["decoding.beam=[5"], r"--multirun decoding\.beam=\[5: "),
    ],
)
def test_nothing_to_sweep(overrides: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        combinations(overrides)
    assert "\n" not in str(caught.value)


class Processes:
    """Stands for the processes of the runs: writes the summary that each would, or fails as told."""

    def __init__(self, wer: dict[str, float], failing: str | None = None, partial: str = "") -> None:
        self.wer, self.failing, self.partial, self.started = wer, failing, partial, []  # type: ignore[var-annotated]

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def run(running: Any, command: list[str], **_: Any) -> subprocess.CompletedProcess[str] | None:
            return None if running._ended else self.run(command)

        monkeypatch.setattr(multirun.Processes, "run", run)

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        assert command[:3] == [sys.executable, "-m", "fairseq_skd.infer"]
        name = command[3]
        self.started.append(name)
        if name == self.failing:
            return subprocess.CompletedProcess(
                command, 2, stderr="progress\nfairseq_skd.infer: lexicon l does not exist\n"
            )
        Path(name).mkdir(exist_ok=True)
        left_out = [{"file": "/a.wav", "line": 2, "reason": "broken"}] if name in self.partial else []
        summary = {"wer": self.wer[name], "cer": 1.0, "not_decoded": left_out}
        Path(name, "summary.json").write_text(json.dumps(summary))
        return subprocess.CompletedProcess(command, 3 if left_out else 0, stderr="")


def runs(names: str, here: Path) -> list[Run]:
    settings = Settings.read({"task": {"data": str(here)}, "common_eval": {"path": str(here / "c.pt")}})
    return [Run({"decoding.lmweight": name}, [name], settings, here / name) for name in names]


def test_a_table_and_no_second_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "c.pt").write_text("weights")
    processes = Processes({"a": 30.0, "b": 10.0, "c": 20.0})
    processes.stand_in(monkeypatch)
    rows, _ = run_all(runs("ab", here), here, jobs=1)
    assert processes.started == ["a", "b"]
    assert [(row["decoding.lmweight"], row["wer"]) for row in rows] == [("b", 10.0), ("a", 30.0)]
    assert [row["wer"] for row in run_all(runs("abc", here), here, jobs=2)[0]] == [10.0, 20.0, 30.0]
    assert processes.started == ["a", "b", "c"]
    lines = (here / "multirun.tsv").read_text().splitlines()
    assert lines[0] == "wer\tcer\tdecoding.lmweight\tfolder"
    assert lines[1] == f"10.0\t1.0\tb\t{here}/b"
    later = time.time() + 10
    os.utime(here / "c.pt", (later, later))  # trained further
    run_all(runs("b", here), here, jobs=1)
    assert processes.started == ["a", "b", "c", "b"]


@pytest.mark.faults
def test_a_run_that_left_out_a_file_does_not_end_the_others(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F29: it stands in the table, and is repeated by the next call, in which the file may be repaired."""
    processes = Processes({"a": 30.0, "b": 10.0, "c": 20.0}, partial="ab")
    processes.stand_in(monkeypatch)
    rows, left_out = run_all(runs("abc", here), here, jobs=1)
    assert [row["wer"] for row in rows] == [10.0, 20.0, 30.0]
    assert left_out == [{"file": "/a.wav", "line": 2, "reason": "broken"}]
    processes.partial = ""
    assert run_all(runs("abc", here), here, jobs=1)[1] == []
    assert processes.started == ["a", "b", "c", "a", "b"]


def test_other_settings_are_run_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Processes({"a": 30.0})
    processes.stand_in(monkeypatch)
    (run,) = runs("a", here)
    run_all([run], here, jobs=1)
    narrow = {"task": {"data": str(here)}, "common_eval": {"path": str(here / "c.pt")}, "decoding": {"beam": 5}}
    run_all([run._replace(settings=Settings.read(narrow))], here, jobs=1)
    assert processes.started == ["a", "a"]


def test_a_failure_stops_what_has_not_begun(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Processes({"a": 30.0, "c": 1.0}, failing="b")
    processes.stand_in(monkeypatch)
    with pytest.raises(UserError, match="^lmweight=b: lexicon l does not exist$"):
        run_all(runs("abcdefgh", here), here, jobs=1)
    assert processes.started == ["a", "b"]
    assert not (here / "multirun.tsv").exists()
    with pytest.raises(UserError, match="two combinations would have the same folder"):
        run_all(runs("aa", here), here, jobs=1)


def test_the_command(corpus: Path, hubert: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """The runs are made in this process here, one by one: each imports fairseq for seconds otherwise."""

    def run(_: object, command: list[str], **__: object) -> subprocess.CompletedProcess[str]:
        infer.main(command[3:])
        capsys.readouterr()
        return subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.setattr(multirun.Processes, "run", run)
    arguments = ["--config-dir", str(CONFIG), "-m", f"task.data={corpus}", f"common_eval.path={hubert}"]
    infer.main([*arguments, "decoding.layer=0,2", "common_eval.results_path=out"])
    first = capsys.readouterr().out.splitlines()
    assert first[0].split() == ["wer", "cer", "decoding.layer"]
    assert {line.split()[-1] for line in first[1:3]} == {"0", "2"}
    assert first[3] == f"2 runs, lowest WER first: {Path.cwd()}/out/multirun.tsv"
    exits = [json.loads(Path(f"out/layer={layer}/summary.json").read_text())["exit_layer"] for layer in (0, 2)]
    assert exits == [4, 2]
    monkeypatch.setattr(multirun.Processes, "run", None)  # nothing is run again
    infer.main([*arguments, "decoding.layer=0,2", "common_eval.results_path=out"])
    assert capsys.readouterr().out.splitlines() == first
    with pytest.raises(UserError, match=r"decoding\.beam=0 is out of range"):
        infer.main([*arguments, "decoding.beam=5,0"])
    with pytest.raises(UserError, match=r"--jobs 0 is out of range"):
        infer.main([*arguments, "--jobs", "0"])


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_runs_end_with_the_one_that_runs_them(here: Path, number: signal.Signals) -> None:
    """X8: after SIGTERM they went on."""
    stub = here / "python"  # in the place of Python: tells that it runs, and would run for a minute
    stub.write_text(f"#!/bin/sh\necho $$ > {here}/$3.pid.new; mv {here}/$3.pid.new {here}/$3.pid; exec sleep 60\n")
    stub.chmod(0o755)
    parent = os.fork()
    if not parent:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
        multirun.sys.executable = str(stub)
        os._exit(run_command("fairseq_skd.infer", lambda: run_all(runs("abc", here), here, jobs=2)))
    deadline = time.monotonic() + 30
    while len(list(here.glob("*.pid"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(parent, number)
    assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == 130
    for file in here.glob("*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)
    assert len(list(here.glob("*.pid"))) == 2, "the third was not begun"
