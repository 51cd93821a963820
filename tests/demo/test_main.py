import json
import os
import shlex
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from fairseq_skd import cli
from fairseq_skd.demo import __main__ as demo
from fairseq_skd.demo.__main__ import STEPS, Step, exits_table, prepare_folder, run_steps, words_of
from fairseq_skd.errors import UserError, run_command

CONFIGS = Path(__file__).parents[2] / "config"
SUMMARY = {"layers": 4, "parameters": 10, "wer": 3.0, "cer": 1.0, "real_time_factor": 0.01}
WRITE = """
import os, pathlib, sys
folder, text, name = pathlib.Path(sys.argv[1]), sys.argv[2], (sys.argv[3:] or ["file"])[0]
folder.mkdir(exist_ok=True)
with (folder / name).open("a") as file:
    file.write(text)
threads, first = os.environ.get("OMP_NUM_THREADS"), os.environ["PATH"].split(":")[0]
print(f"wrote {folder.name} with {threads} threads, {first}")
sys.exit("no luck" if text == "fail" else 0)
"""


@pytest.fixture
def commands(tmp_path):
    """Words of each command, by what it writes, in a folder whose name Hydra's grammar does not take as it is."""
    places = {"out": tmp_path / "demo out", "pretrain": CONFIGS / "pretrain", "python": Path("python3")}
    return {step.output: words_of(step.command, places) for step in STEPS}


def overrides_of(words):
    return dict(word.split("=", 1) for word in words if "=" in word)


def test_each_step_writes_something_of_its_own(commands, tmp_path):
    assert len(commands) == len(STEPS)
    for output, words in commands.items():
        assert f"{tmp_path}/demo out/{output}" in [word.rpartition("=")[2].strip("'") for word in words]


def test_hydra_understands_the_overrides(commands, tmp_path):
    parser = OverridesParser.create()
    for words in commands.values():
        for override in parser.parse_overrides([word for word in words if "=" in word]):
            assert override.key_or_group
            if override.key_or_group == "task.data":
                assert override.value() == f"{tmp_path}/demo out/manifest"


def test_programs_and_options_are_words(commands, tmp_path):
    assert commands["corpus"] == ["python3", "-m", "fairseq_skd.demo.corpus", "--out", f"{tmp_path}/demo out/corpus"]
    train = ["python3", "-m", "fairseq_skd.train"]
    assert commands["pretrain"][:6] == [*train, "--config-dir", str(CONFIGS / "pretrain"), "hubert_tiny"]
    assert commands["finetune"][:4] == [*train, "hubert_mini"]
    assert overrides_of(commands["finetune"])["model.student_layers"] == "[2]"


def test_student_is_decoded_as_it_was_trained(commands):
    named = {output: overrides_of(words) for output, words in commands.items()}
    assert named["finetune"]["model.student_layers"] == f"[{named['decode-student']['decoding.layer']}]"
    text = (CONFIGS / "pretrain" / "hubert_tiny.yaml").read_text()
    assert f"encoder_layers: {named['decode-teacher']['decoding.layer']}\n" in text


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    prepare_folder(folder)
    return folder


@pytest.fixture
def writing(tmp_path):
    """Makes steps that append a text to ``<name>/file``: its length tells how often a step ran since a deletion."""
    script = tmp_path / "write.py"
    script.write_text(WRITE)
    return lambda name, text="x": Step(name, f"Write {name}", f"{{python}} {script} {{out}}/{name} {text}")


def run(out, *steps):
    run_steps(steps, out, {"out": out, "python": Path(sys.executable)}, os.environ)


def written(out, *names):
    return [(out / name / "file").read_text() for name in names]


def test_steps_run_in_order_and_print_commands_to_paste(out, writing, capfd):
    run(out, writing("first"), writing("second"))
    printed = capfd.readouterr().out
    assert printed.index("[1/2] Write first") < printed.index("wrote first") < printed.index("[2/2] Write second")
    (command,) = [line for line in printed.splitlines() if line.endswith("/first x")]
    assert shlex.split(command) == words_of(writing("first").command, {"out": out, "python": Path(sys.executable)})


def test_what_is_done_is_skipped(out, writing, capfd):
    for skipped in (0, 2):
        run(out, writing("first"), writing("second"))
        assert capfd.readouterr().out.count("done before, skipped") == skipped
    assert written(out, "first", "second") == ["x", "x"]


def test_a_changed_command_runs_again_and_so_does_what_follows(out, writing):
    run(out, writing("before"), writing("changed"), writing("after"))
    (out / "before" / "file").write_text("kept")
    (out / "after" / "file").write_text("stale")
    run(out, writing("before"), writing("changed", "y"), writing("after"))
    assert written(out, "before", "changed", "after") == ["kept", "y", "x"]


def test_failure_names_the_step_which_is_begun_anew(out, writing, capfd):
    with pytest.raises(UserError, match=r"^step 2, broken, failed with status 1: what it said stands above$"):
        run(out, writing("first"), writing("broken", "fail"), writing("later"))
    assert "no luck" in capfd.readouterr().err
    assert not (out / "later").exists()
    assert written(out, "broken") == ["fail"]
    assert len((out / "done.txt").read_text().splitlines()) == 1
    run(out, writing("first"), writing("broken"), writing("later"))
    assert written(out, "first", "broken", "later") == ["x", "x", "x"]


@pytest.fixture
def quick_steps(monkeypatch, writing):
    """Two steps instead of nine: each writes the summary that decoding would write."""
    summary = json.dumps({**SUMMARY, "exit_layer": 2}).replace(" ", "").replace("{", "{{").replace("}", "}}")
    steps = [Step(f"decode-{who}", who, writing(f"decode-{who}", summary).command) for who in ("teacher", "student")]
    monkeypatch.setattr(demo, "STEPS", [Step(*step[:2], f"{step.command} summary.json") for step in steps])


@pytest.mark.usefixtures("quick_steps")
def test_ends_with_the_table_and_the_report(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        demo.main([])
        printed = capfd.readouterr().out
        lines = [line.split()[:2] for line in printed.splitlines()]
        assert ["teacher", "2"] in lines and ["student", "2"] in lines
        assert f"utterances to listen to: {tmp_path}/demo_out/report.html" in printed
    assert printed.count("skipped") == 2


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.parametrize(("cores", "asked", "threads"), [(64, None, "2"), (1, None, "1"), (64, "16", "16")])
def test_environment_is_printed_and_has_few_threads(tmp_path, monkeypatch, capfd, cores, asked, threads):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    demo.main(["--out", str(tmp_path / "out")])
    printed = capfd.readouterr().out
    assert printed.startswith(f"export PATH={Path(sys.executable).parent}:$PATH OMP_NUM_THREADS={threads}\n")
    assert f"wrote decode-student with {threads} threads, {Path(sys.executable).parent}\n" in printed


def test_table():
    teacher = {"exit_layer": 4, "layers": 4, "parameters": 1234567, "wer": 3.456, "cer": 1.2}
    student = {"exit_layer": 2, "layers": 4, "parameters": 654321, "wer": 12.0, "cer": 4.0, "real_time_factor": 0.003}
    assert exits_table({"teacher": {**teacher, "real_time_factor": 0.00512}, "student": student}).splitlines() == [
        "exit       layers    parameters    WER %    CER %    real-time factor",
        "teacher    4 of 4     1,234,567     3.46     1.20              0.0051",
        "student    2 of 4       654,321    12.00     4.00              0.0030",
    ]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("theirs", "exists and is no folder of this demo: give a new folder"),
        ("theirs/thesis.tex", "exists and is no folder of this demo: give a new folder"),
        ("theirs/thesis.tex/out", "Not a directory: "),
    ],
)
def test_folder_that_cannot_be_used(tmp_path, capsys, name, sentence):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").touch()
    assert run_command("fairseq_skd.demo", lambda: demo.main(["--out", str(tmp_path / name)])) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert sentence in told and str(tmp_path / name) in told
    assert os.listdir(tmp_path / "theirs") == ["thesis.tex"]


def test_an_empty_folder_will_do(tmp_path):
    prepare_folder(tmp_path)
    prepare_folder(tmp_path)


def test_a_package_that_was_copied_without_its_configs(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "fairseq_skd" / "cli.py"))
    with pytest.raises(UserError, match=r"^config/pretrain is neither in .*/fairseq_skd nor beside it: copy it along"):
        demo.main(["--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
