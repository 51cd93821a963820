"""Decoding from end to end, on five utterances and checkpoints with random weights."""

import functools
import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import yaml
from omegaconf import OmegaConf

import fairseq_skd
import fairseq_skd.decoding.decode
from fairseq_skd.decoding.config import Settings
from fairseq_skd.errors import UserError
from fairseq_skd.models.skd_ctc import SkdCtc
from tests.builders import LETTERS, CtcTask, write_corpus
from tests.decoding.checkpoints import (
    CONFIG,
    FULL,
    REFERENCES,
    STUDENT,
    TEXTS,
    edit_checkpoint,
    read_files,
    read_summary,
    set_constant_symbols,
    write_fine_tuned,
)
from tests.scoring.test_transcripts import edit_distance

pytestmark = pytest.mark.usefixtures("here")
CUDA = torch.cuda.is_available()


def decode(corpus: Path, checkpoint: Path, *overrides: str, out: str | None = "out") -> dict[str, bytes]:
    """Decode as the command does, but without Hydra, which is slow."""
    config: dict[str, Any] = yaml.safe_load((CONFIG / "viterbi.yaml").read_text())
    config["task"]["data"], config["common_eval"]["path"] = str(corpus), str(checkpoint)
    config["common_eval"]["results_path"], config["dataset"]["num_workers"] = out, 0
    for override in overrides:
        key, value = override.split("=", 1)
        section, name = key.split(".")
        config[section][name] = yaml.safe_load(value)
    folder, _ = fairseq_skd.decoding.decode.decode(Settings.read(config))
    return read_files(folder)


@functools.cache
def whole_model(checkpoint: Path) -> SkdCtc:
    """Build and load the model as fairseq does."""
    state = torch.load(checkpoint, weights_only=True)
    config = OmegaConf.create(state["cfg"])
    model = SkdCtc.build_model(config.model, CtcTask(normalize=config.model.normalize))
    model.load_state_dict(state["model"], strict=True)
    return model.eval()


def expected_units(checkpoint: Path, corpus: Path, exit_layer: int, index: int) -> str:
    """Decode one utterance independently: whole model, audio read here, symbols merged here."""
    model = whole_model(checkpoint)
    wave, _ = soundfile.read(corpus / "audio" / f"test{index}.wav", dtype="float32")
    source = torch.from_numpy(wave)[None]
    if model.cfg.normalize:
        source = (source - source.mean()) / torch.sqrt(source.var(unbiased=False) + 1e-5)
    with torch.no_grad():
        best = model(source=source, padding_mask=None)["exit_logits"][exit_layer][:, 0].argmax(dim=1).tolist()
    symbols = ["<s>", "<pad>", "</s>", "<unk>", *LETTERS]
    texts = [symbols[unit] for unit, _ in itertools.groupby(best)]
    return " ".join(text for text in texts if text not in ("<s>", "</s>"))


@pytest.mark.parametrize(("layer", "symbol"), [("0", "T"), (str(FULL), "T"), ("null", "T"), (str(STUDENT), "E")])
@pytest.mark.slow
def test_bytes_of_the_files(corpus: Path, hubert: Path, tmp_path: Path, layer: str, symbol: str) -> None:
    heads = {"w2v_encoder": "T", f"student_heads.{STUDENT}": "E"}
    constant = set_constant_symbols(hubert, tmp_path / "constant.pt", heads)
    hypotheses = "".join(f"{symbol} (None-{index})\n" for index in range(5))
    expected = {"hypo.word": hypotheses, "hypo.units": hypotheses, **REFERENCES}
    found = decode(corpus, constant, f"decoding.layer={layer}")
    assert found == {name: text.encode() for name, text in expected.items()}
    # The hypothesis T or E matches no reference word: A NO / TEN / TO BE / EAT / IT IS
    errors = {"T": 2 + 1 + 2 + 1 + 2, "E": 2 + 1 + 2 + 1 + 2}[symbol]
    characters = {"T": 4 + 2 + 4 + 2 + 4, "E": 4 + 2 + 4 + 2 + 5}[symbol]
    written = read_summary()
    assert (written["word_errors"], written["words"], written["wer"]) == (errors, 8, 100.0)
    assert (written["character_errors"], written["characters"]) == (characters, 4 + 3 + 5 + 3 + 5)
    assert (written["sentences"], written["exit_layer"], written["layers"]) == (5, FULL if symbol == "T" else 2, FULL)
    assert written["audio_seconds"] == pytest.approx(sum(seconds for _, seconds in TEXTS))
    assert written["real_time_factor"] == pytest.approx(written["decode_seconds"] / 3.9, abs=0.001)


@pytest.mark.slow
def test_blanks_only(corpus: Path, hubert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = set_constant_symbols(hubert, tmp_path / "silent.pt", {"w2v_encoder": "<s>"})
    found = decode(corpus, silent)
    assert found["hypo.word"] == b"".join(b" (None-%d)\n" % index for index in range(5))
    assert read_summary()["wer"] == 100.0
    assert "the model outputs only blanks" in capsys.readouterr().err
    assert read_summary()["blankweight"] == 0
    assert decode(corpus, silent, "decoding.blankweight=-1000")["hypo.word"] != found["hypo.word"]
    assert read_summary()["blankweight"] == -1000


@pytest.mark.parametrize("exit_layer", [FULL, STUDENT])
@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
@pytest.mark.slow
def test_text_of_each_exit(corpus: Path, kind: str, exit_layer: int, request: pytest.FixtureRequest) -> None:
    checkpoint = request.getfixturevalue(kind)
    found = decode(corpus, checkpoint, f"decoding.layer={exit_layer}", "dataset.batch_size=1")
    units = [expected_units(checkpoint, corpus, exit_layer, index) for index in range(5)]
    assert len(set(units)) == 5
    assert found["hypo.units"].decode() == "".join(f"{text} (None-{index})\n" for index, text in enumerate(units))
    words = [text.replace(" ", "").replace("|", " ").strip() for text in units]
    assert found["hypo.word"].decode() == "".join(f"{text} (None-{index})\n" for index, text in enumerate(words))
    assert found["ref.word"].decode() == REFERENCES["ref.word"]
    errors = sum(edit_distance(text.split(), wanted.split()) for text, (wanted, _) in zip(words, TEXTS, strict=True))
    assert read_summary()["word_errors"] == errors
    assert read_summary()["wer"] == pytest.approx(100 * errors / 8)


@pytest.mark.faults
@pytest.mark.parametrize("extractor", ["default", "layer_norm"])
@pytest.mark.parametrize(("kind", "normalize"), [("hubert", False), ("wav2vec2", True), ("wavlm", False)])
@pytest.mark.slow
def test_batches_do_not_change_the_text(
    corpus: Path, tmp_path: Path, kind: str, normalize: bool, extractor: str
) -> None:
    checkpoint = write_fine_tuned(tmp_path / "c.pt", kind, extractor_mode=extractor, normalize=normalize)
    alone = decode(corpus, checkpoint, "dataset.batch_size=1")
    assert decode(corpus, checkpoint, "dataset.batch_size=5") == alone
    assert decode(corpus, checkpoint, "dataset.max_tokens=20000") == alone
    texts = alone["hypo.units"].decode().splitlines()
    assert texts[3] == f"{expected_units(checkpoint, corpus, FULL, 3)} (None-3)"


@pytest.mark.slow
def test_two_runs_and_worker_processes_give_the_same_bytes(corpus: Path, hubert: Path) -> None:
    first = decode(corpus, hubert, "decoding.layer=2")
    assert decode(corpus, hubert, "decoding.layer=2", "common.seed=7") == first
    assert decode(corpus, hubert, "decoding.layer=2", "dataset.num_workers=1") == first


def test_a_results_folder_that_cannot_be_created(corpus: Path, hubert: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"the results folder .*file/out cannot be created \(Not a directory\): set"):
        decode(corpus, hubert, out=f"{tmp_path}/file/out")


@pytest.mark.slow
def test_a_checkpoint_without_dictionary_or_students(corpus: Path, tmp_path: Path) -> None:
    plain = write_fine_tuned(tmp_path / "c.pt", students=())
    state = torch.load(plain, weights_only=True)
    del state["task_state"]
    torch.save(state, plain)
    decode(corpus, plain)
    with pytest.raises(UserError, match=r"decoding\.layer=2: .* it was trained without a student"):
        decode(corpus, plain, "decoding.layer=2")


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
@pytest.mark.slow
def test_labels_beside_the_data(
    corpus: Path, kind: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = request.getfixturevalue(kind)
    expected = decode(corpus, checkpoint)
    data, labels = tmp_path / "data", tmp_path / "labels"
    data.mkdir()
    labels.mkdir()
    shutil.copy(corpus / "test.tsv", data)
    for name in ("test.ltr", "dict.ltr.txt"):
        shutil.copy(corpus / name, labels)
    shutil.rmtree("out")
    assert decode(data, checkpoint, f"task.label_dir={labels}") == expected
    shutil.rmtree("out")
    with pytest.raises(FileNotFoundError, match=r"out/ref\.word"):
        decode(data, checkpoint)
    warning = f"{data}/test.ltr does not exist: decoding without references and error rates (or set task.label_dir)\n"
    assert warning in capsys.readouterr().err and "wer" not in read_summary()


def test_bfloat16_on_the_cpu(corpus: Path, hubert: Path) -> None:
    decode(corpus, hubert, "common.bf16=true")
    assert read_summary()["precision"] == "bfloat16"


@pytest.mark.skipif(not CUDA, reason="needs CUDA")
@pytest.mark.parametrize("precision", ["common.fp16=false", "common.fp16=true"])
def test_cuda(corpus: Path, hubert: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = decode(corpus, hubert)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = decode(corpus, hubert, precision)
    assert read_summary()["device"] != "cpu"
    assert found == decode(corpus, hubert, precision)
    assert precision.endswith("true") or found == expected


def test_data_that_cannot_be_used(corpus: Path, hubert: Path, tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "data", {"test": [("A NO", 0.2), ("TEN", 0.02)]})
    with pytest.raises(UserError, match=r"1 of 2 audio files are shorter than 400 samples"):
        decode(folder, hubert)
    (folder / "test.ltr").write_text("\n|\n")
    with pytest.raises(UserError, match=r"test\.ltr holds no words, so error rates are undefined"):
        decode(folder, hubert)
    slow = write_corpus(tmp_path / "slow", {"test": [("A NO", 0.2)]}, sample_rate=8000)
    with pytest.raises(UserError, match=r"1 of 1 audio files are sampled at 8000 Hz instead of the 16000 Hz"):
        decode(slow, hubert)


@pytest.mark.faults
def test_symbols_outside_the_dictionary_count_as_errors(
    corpus: Path, hubert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """F4: one such symbol refused the whole subset; a written <unk> counted as five characters."""
    constant = set_constant_symbols(hubert, tmp_path / "constant.pt", {"w2v_encoder": "A"})
    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    (data / "test.ltr").write_text("A Ï |\nA <unk> |\nÉ |\nA |\nA | Ï Ï |\n")
    found = decode(data, constant)
    assert found["hypo.word"] == b"".join(b"A (None-%d)\n" % index for index in range(5))
    words = "AÏ (None-0)\nA\ufffd (None-1)\nÉ (None-2)\nA (None-3)\nA ÏÏ (None-4)\n"
    assert found["ref.word"].decode() == words
    units = "A Ï | (None-0)\nA <unk> | (None-1)\nÉ | (None-2)\nA | (None-3)\nA | Ï Ï | (None-4)\n"
    assert found["ref.units"].decode() == units
    written = read_summary()
    assert written["unknown_symbols"] == 5
    assert (written["word_errors"], written["words"]) == (1 + 1 + 1 + 0 + 1, 6)
    # In the last utterance a space and two letters are missing.
    assert (written["character_errors"], written["characters"]) == (1 + 1 + 1 + 0 + 3, 2 + 2 + 1 + 1 + 4)
    assert (
        f"5 symbols in the references of {data}/test.tsv are not in the dictionary ('Ï' 3, '<unk>' 1, 'É' 1): the "
        f"model cannot output them, so each counts as an error\n"
    ) in capsys.readouterr().err
    shutil.rmtree("out")
    decode(corpus, constant)
    assert read_summary()["unknown_symbols"] == 0
    assert "not in the dictionary" not in capsys.readouterr().err


@pytest.mark.faults
def test_references_without_a_word_boundary(
    corpus: Path, hubert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """F26: phones under post_process=letter are one word."""
    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    (data / "test.ltr").write_text("A N\nT E N\nT O\nE A T\nI T\n")
    decode(data, hubert)
    assert read_summary()["words"] == 5
    assert capsys.readouterr().err.startswith(
        f"common_eval.post_process=letter makes one word of each transcript, because no reference of {data}/test.tsv "
        f"has a word boundary |: set common_eval.post_process=none\n"
    )
    decode(data, hubert, "common_eval.post_process=none")
    assert read_summary()["words"] == 12
    assert "post_process" not in capsys.readouterr().err


@pytest.mark.faults
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
@pytest.mark.slow
def test_audio_that_holds_nan(
    kind: str, workers: int, corpus: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """X7, F27: the error blamed the model's weights or the precision."""
    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    manifest = data / "test.tsv"
    manifest.write_text(f"{data}/audio\n" + manifest.read_text().split("\n", 1)[1])
    wave, rate = soundfile.read(data / "audio" / "test2.wav", dtype="float32")
    wave[4000] = float("nan")
    soundfile.write(data / "audio" / "test2.wav", wave, rate, subtype="FLOAT")
    decode(data, request.getfixturevalue(kind), f"dataset.num_workers={workers}")
    (left_out,) = read_summary()["not_decoded"]
    reason = "it holds NaN or Inf: replace it, or leave it out"
    assert left_out == {"file": f"{data}/audio/test2.wav", "line": 4, "reason": reason}


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
@pytest.mark.slow
def test_a_file_that_decodes_to_less_than_the_manifest_lists(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """F5: half of a recording was transcribed; its header states the whole length."""
    folder = write_corpus(tmp_path / "data", {"test": [("A NO", 0.5)]})
    audio = folder / "audio" / "test0.mp3"
    soundfile.write(audio, 0.1 * torch.randn(96000, generator=torch.Generator().manual_seed(0)).numpy(), 16000)
    content = audio.read_bytes()
    audio.write_bytes(content[: len(content) // 2])
    decoded = len(soundfile.read(audio)[0])
    assert decoded < soundfile.info(audio).frames == 96000
    (folder / "test.tsv").write_text(f"{audio.parent}\ntest0.mp3\t96000\n")
    sentence = (
        rf"test\.tsv line 2: .*test0\.mp3 cannot be read: it decodes to {decoded} samples, but the manifest lists 96000"
    )
    with pytest.raises(UserError, match=sentence):
        decode(folder, request.getfixturevalue(kind))
    (folder / "test.tsv").write_text(f"{audio.parent}\ntest0.mp3\t{decoded}\n")  # the header is ignored
    decode(folder, request.getfixturevalue(kind))
    assert read_summary()["audio_seconds"] == pytest.approx(decoded / 16000, abs=0.001)


def test_a_truncated_file_is_named(hubert: Path, tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "data", {"test": [("A NO", 0.5)]})
    flac = folder / "audio" / "test0.flac"
    wave, rate = soundfile.read(folder / "audio" / "test0.wav")
    soundfile.write(flac, wave, rate)
    content = flac.read_bytes()
    flac.write_bytes(content[:200] + bytes(len(content) - 200))
    (folder / "test.tsv").write_text(f"{folder}/audio\ntest0.flac\t8000\n")
    with pytest.raises(UserError, match=r"test\.tsv line 2: .*test0\.flac cannot be read"):
        decode(folder, hubert)


def test_a_checkpoint_for_another_sampling_rate(corpus: Path, hubert: Path, tmp_path: Path) -> None:
    saved = torch.load(hubert, weights_only=True)["cfg"]["model"]["w2v_args"]
    saved["task"]["sample_rate"] = 8000
    other = edit_checkpoint(hubert, tmp_path / "c.pt", task={"sample_rate": 8000}, model={"w2v_args": saved})
    with pytest.raises(UserError, match=r"sampled at 16000 Hz instead of the 8000 Hz of the model's training"):
        decode(corpus, other)


def test_default_folder_names_subset_and_exit(corpus: Path, hubert: Path, here: Path) -> None:
    for layer in (2, 0):
        decode(corpus, hubert, f"decoding.layer={layer}", out=None)
    files = sorted(str(path.relative_to(here)) for path in here.rglob("*") if path.is_file())
    names = ["hypo.units", "hypo.word", "ref.units", "ref.word", "summary.json"]
    assert files == [f"decode/test-layer{depth}/{name}" for depth in (2, 4) for name in names]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("decoding.layer=3", r"decoding\.layer=3: the checkpoint has no exit at layer 3: use 0 .* \(2\)$"),
        ("dataset.gen_subset=dev", r"dev\.tsv does not exist; the folder has test"),
        ("task.labels=phn", r"dict\.phn\.txt does not exist"),
        ("common.fp16=true", r"common\.fp16=true needs CUDA"),
    ],
)
def test_mistakes_are_reported_before_anything_is_written(
    corpus: Path, hubert: Path, override: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        decode(corpus, hubert, override)
    assert "\n" not in str(caught.value)
    assert not list(Path.cwd().iterdir())
