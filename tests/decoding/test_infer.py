"""The command: overrides, paths and terminal."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import fairseq_skd
from fairseq_skd import infer
from fairseq_skd.errors import UserError, run_command
from tests.decoding.checkpoints import CONFIG, REFERENCES, damaged, read_files, set_constant_symbols

pytestmark = pytest.mark.usefixtures("here")
WORKERS = "dataset.num_workers=0"


def decode(corpus: Path, checkpoint: Path, *overrides: str) -> dict[str, bytes]:
    paths = [f"task.data={corpus}", f"common_eval.path={checkpoint}", "common_eval.results_path=out"]
    shutil.rmtree("out", ignore_errors=True)  # results of another decode are not overwritten
    infer.main([WORKERS, *paths, *overrides])
    return read_files()


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("common_eval.model_overrides", "\"{'decode_layer': 2}\"", "decoding.layer"),
        ("decoding.results_path", "out", "common_eval.results_path"),
    ],
)
def test_keys_of_fairseqs_decoder_that_have_another_name_here(
    corpus: Path, hubert: Path, tmp_path: Path, key: str, value: str, instead: str
) -> None:
    """On the command line, with and without +, and in the user's own YAML."""
    section, _, name = key.partition(".")
    brought = yaml.safe_load((CONFIG / "viterbi.yaml").read_text())
    brought[section][name] = value
    (tmp_path / "brought.yaml").write_text(yaml.safe_dump(brought))
    paths = (f"task.data={corpus}", f"common_eval.path={hubert}")
    for arguments in (
        [WORKERS, f"{key}={value}", *paths],
        [WORKERS, f"+{key}={value}", *paths],
        ["--config-dir", str(tmp_path), "--config-name", "brought", *paths],
    ):
        with pytest.raises(UserError, match=rf"^{re.escape(key)} is no key of this command: use {instead}$"):
            infer.main(arguments)
    assert not list(Path.cwd().iterdir())


@pytest.mark.slow
def test_home_accents_and_signs_in_paths(
    corpus: Path, hubert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home d'été (1), a=b"
    shutil.copytree(corpus, home / "data")
    shutil.copy(hubert, home / "c.pt")
    monkeypatch.setenv("HOME", str(home))
    expected = decode(corpus, hubert)
    infer.main([WORKERS, "task.data=~/data", "common_eval.path=~/c.pt", "common_eval.results_path=~/été"])
    assert read_files(home / "été") == expected
    relative = os.path.relpath(home)
    assert decode(Path(relative, "data"), Path(relative, "c.pt")) == expected


@pytest.mark.slow
def test_hypotheses_are_printed_on_request(
    corpus: Path, hubert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    constant = set_constant_symbols(hubert, tmp_path / "constant.pt", {"w2v_encoder": "T"})
    decode(corpus, constant)
    quiet = capsys.readouterr().out
    assert quiet.startswith("WER 100.00 % (8 errors in 8 words), CER 80.00 %, 5 sentences, exit 4 of 4 layers, ")
    assert quiet.endswith(f": {Path.cwd()}/out\n")
    decode(corpus, constant, "common_eval.quiet=false")
    printed = capsys.readouterr().out.splitlines()
    assert printed[:4] == ["HYPO: T", "REF: A NO", "HYPO: T", "REF: TEN"]
    assert len(printed) == 11


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("decoding.lyer=3", r"lyer"),
        ("+decoding.lyer=3", r"there is no key decoding\.lyer, decoding has: type, layer, lexicon, "),
        ("task.pad_audio=true", r"there is no key task\.pad_audio, task has: data, label_dir, labels$"),
        ("distributed_training.distributed_world_size=1", r"there is no key distributed_training\..*, it has: task, "),
        ("common.user_dir=/u", r"there is no key common\.user_dir, common has: seed, cpu, fp16, bf16$"),
        ("decoding.layer=two", r"decoding\.layer=two cannot be used, it takes a whole number or null"),
        ("common_eval.results_path=${nowhere}", r"nowhere"),
    ],
)
@pytest.mark.slow
def test_mistakes_in_overrides(corpus: Path, hubert: Path, override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        decode(corpus, hubert, override)
    assert "\n" not in str(caught.value)
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("more", [[], ["--multirun"]])
def test_words_that_are_no_override(more: list[str]) -> None:
    for words in (["hubert_mini", "decoding.layer=6"], ["decoding.layer", "=", "6"]):
        with pytest.raises(UserError) as refused:
            infer.main([*words, *more])
        assert str(refused.value) == (
            f"{words[0]} cannot be read: give a key and its value with = and no space between, key=value"
        )


@pytest.mark.slow
def test_command_line(corpus: Path, hubert: Path, tmp_path: Path) -> None:
    """The checkpoint is alone in its folder, the data in another, the current folder is a third."""
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(hubert, alone / "model.pt")
    repository = Path(fairseq_skd.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "fairseq_skd.infer", f"task.data={corpus}", f"common_eval.path={alone}/model.pt"]
    command += ["--config-dir", os.path.relpath(CONFIG), "decoding.layer=2"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("WER ")
    assert done.stdout.count("\n") == 1
    assert "decoding: 5 of 5 (100 %)" in done.stderr
    assert not [word for word in ("DEBUG", "INFO", "Warning") if word in done.stderr]
    assert Path("decode/test-layer2/ref.word").read_text() == REFERENCES["ref.word"]


@pytest.mark.slow
def test_a_mistake_ends_in_one_sentence(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [WORKERS, f"task.data={corpus}", "common_eval.path=nowhere.pt"]
    assert run_command("fairseq_skd.infer", lambda: infer.main(arguments)) == 2
    assert capsys.readouterr().err == f"fairseq_skd.infer: checkpoint {Path.cwd()}/nowhere.pt does not exist\n"


@pytest.mark.faults
def test_files_that_were_left_out_are_listed_last(
    corpus: Path, hubert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """F29, with exit status 3."""
    data = damaged(corpus, tmp_path / "data", 1, 3)
    arguments = [WORKERS, f"task.data={data}", f"common_eval.path={hubert}", "common_eval.results_path=out"]
    assert run_command("fairseq_skd.infer", lambda: infer.main(arguments)) == 3
    said, told = capsys.readouterr()
    assert " errors in 6 words), " in said and " %, 3 of 5 sentences, exit 4 of 4 layers, " in said
    lines = told[told.index("fairseq_skd.infer: ") :].splitlines()
    assert lines[0] == "fairseq_skd.infer: 2 audio files could not be read and were not decoded:"
    assert [line.partition(": ")[0] for line in lines[1:3]] == [f"  {data}/audio/test{i}.flac" for i in (1, 3)]
    assert lines[3] == "replace these files; the error rates are of the other 3 sentences"


def test_help_shows_an_example_and_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        infer.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "python -m fairseq_skd.infer task.data=/data/manifests" in text
    assert "decoding.layer (null)" in text


@pytest.mark.slow
def test_results_of_another_decode_are_not_overwritten(corpus: Path, hubert: Path, tmp_path: Path) -> None:
    first = decode(corpus, hubert)
    arguments = [WORKERS, f"task.data={corpus}", "common_eval.results_path=out"]
    infer.main([*arguments, f"common_eval.path={hubert}"])
    shutil.copy(hubert, tmp_path / "other.pt")
    shutil.copytree(corpus, tmp_path / "data")
    for ending in ("tsv", "ltr"):
        shutil.copy(corpus / f"test.{ending}", tmp_path / "data" / f"dev.{ending}")
    for override, told in (
        ([f"common_eval.path={hubert}", "decoding.layer=2"], "exit_layer 4, now 2"),
        ([f"common_eval.path={tmp_path}/other.pt"], f"checkpoint {hubert}, now {tmp_path}/other.pt"),
        (
            [f"common_eval.path={hubert}", f"task.data={tmp_path}/data", "dataset.gen_subset=dev"],
            f"manifest {corpus}/test.tsv, now {tmp_path}/data/dev.tsv",
        ),
    ):
        with pytest.raises(UserError) as refused:
            infer.main([*arguments, *override])
        assert str(refused.value) == (
            f"{Path.cwd()}/out holds the results of another decode ({told}): set common_eval.results_path to another "
            f"folder, or delete this one"
        )
    assert read_files() == first


@pytest.mark.slow
def test_the_folder_of_a_training_is_no_checkpoint(corpus: Path, hubert: Path, tmp_path: Path) -> None:
    arguments = [WORKERS, f"task.data={corpus}", f"common_eval.path={tmp_path}"]
    for name, told in (
        ("checkpoint_9.pt", "give a file, such as its checkpoint_best.pt"),
        ("checkpoint_last.pt", f"give common_eval.path={tmp_path}/checkpoint_last.pt"),
        ("checkpoint_best.pt", f"give common_eval.path={tmp_path}/checkpoint_best.pt"),
    ):
        shutil.copy(hubert, tmp_path / name)
        with pytest.raises(UserError) as refused:
            infer.main(arguments)
        assert str(refused.value) == f"common_eval.path={tmp_path} is a folder: {told}"
