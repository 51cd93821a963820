import json
import sys

import pytest

from fairseq_skd.demo import __main__ as demo
from fairseq_skd.demo.plan import Step
from fairseq_skd.errors import run_command

SUMMARY = {"layers": 4, "parameters": 10, "wer": 3.0, "cer": 1.0, "real_time_factor": 0.01}
WRITE = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'summary.json').write_text(sys.argv[2])"


@pytest.fixture
def quick_steps(monkeypatch):
    """Two steps instead of eight: each writes the summary that decoding would write."""

    def steps(at, configs, trainer):
        return [
            Step(
                f"decode-{who}",
                f"Decode with the {who}",
                (sys.executable, "-c", WRITE, str(at.decoded(who)), json.dumps({**SUMMARY, "exit_layer": layer})),
                at.decoded(who),
            )
            for who, layer in (("teacher", 4), ("student", 2))
        ]

    monkeypatch.setattr(demo, "demo_steps", steps)


@pytest.mark.usefixtures("quick_steps")
def test_ends_with_the_table_and_the_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["demo"])
    demo.main()
    printed = capsys.readouterr().out
    assert "[2/2] Decode with the student" in printed
    lines = [line.split()[:2] for line in printed.splitlines()]
    assert ["teacher", "4"] in lines
    assert ["student", "2"] in lines
    assert f"utterances to listen to: {tmp_path}/demo_out/report.html" in printed


@pytest.mark.usefixtures("quick_steps")
def test_second_call_skips_and_fresh_does_not(tmp_path, monkeypatch, capsys):
    for options, skipped in (([], 0), ([], 2), (["--fresh"], 0)):
        monkeypatch.setattr(sys, "argv", ["demo", "--out", str(tmp_path / "out"), *options])
        demo.main()
        assert capsys.readouterr().out.count("skipped") == skipped


def test_mistake_is_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine").touch()
    monkeypatch.setattr(sys, "argv", ["demo", "--out", str(tmp_path)])
    assert run_command("fairseq_skd.demo", demo.main) == 2
    assert capsys.readouterr().err.count("\n") == 1
