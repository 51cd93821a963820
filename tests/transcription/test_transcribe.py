"""The command and ``Recognizer.transcribe``, on a small trained model."""

import io
import itertools
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from fairseq_skd import manifest, ngram, transcribe
from fairseq_skd.errors import PartialResult, UserError
from fairseq_skd.recognizer import Recognizer, load
from fairseq_skd.search.forced import Alignment
from fairseq_skd.transcription.language import beam_search
from fairseq_skd.transcription.transcribing import Aligned, Transcriber
from fairseq_skd.transcription.words import Transcript, Word
from tests.goldens import cases

HUBERT = str(cases.HERE / "hubert.pt")
CORPUS = cases.HERE / "corpus"
AUDIO = sorted(CORPUS.glob("*.flac"))


@pytest.fixture(scope="module")
def rec() -> Recognizer:
    return load(HUBERT, (0, 2), "cpu")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: Any) -> list[str]:
        transcribe.main([HUBERT, *map(str, arguments), "--device", "cpu"])
        return capsys.readouterr().out.splitlines()

    return call


# ---- from Python


def test_words_lie_on_the_spikes(rec: Recognizer) -> None:
    (found,) = rec.transcribe(AUDIO[1:2])
    assert (found.text, found.seconds) == ("IT IS", 1.0)
    out = rec(*rec.batch(AUDIO[1:2]))
    best = out.logits[4][:, 0].argmax(dim=1).tolist()
    symbols = "".join(rec.symbols[unit] if unit else " " for unit in best)
    assert [word.text for word in found.words] == ["IT", "IS"]
    for word in found.words:
        first, end = round(word.start / 0.02), round(word.end / 0.02)
        assert symbols[first] == word.text[0] and symbols[end - 1] == word.text[-1]
        assert symbols[end] != word.text[-1] and 0 < word.confidence <= 1


def test_the_best_of_several_is_the_greedy_text(rec: Recognizer) -> None:
    pytest.importorskip("flashlight.lib.text.decoder", reason="flashlight-text has no wheel for this Python")
    greedy, several = rec.transcribe(AUDIO[:3]), rec.transcribe(AUDIO[:3], nbest=4)
    for one, best in zip(greedy, several, strict=True):
        assert (one.text, one.words) == (best.text, best.words)
        texts = [best.text, *(other.text for other in best.nbest)]
        scores = [best.score, *(other.score for other in best.nbest)]
        assert len(set(texts)) == 4 and scores == sorted(scores, reverse=True)
        assert best.score == pytest.approx(one.score, abs=1e-3)


def test_any_rate_and_channels(rec: Recognizer, tmp_path: Path) -> None:
    wave, rate = soundfile.read(AUDIO[1])
    soundfile.write(tmp_path / "two.wav", np.stack([wave, wave], axis=1), rate, subtype="FLOAT")
    soundfile.write(tmp_path / "slow.wav", np.repeat(wave, 3), 3 * rate, subtype="FLOAT")
    two, fast, exact = rec.transcribe([tmp_path / "two.wav", tmp_path / "slow.wav", AUDIO[1]])
    assert two.words == exact.words and fast.seconds == exact.seconds == 1.0


@pytest.mark.slow
def test_long_audio_has_the_words_of_one_pass(rec: Recognizer, tmp_path: Path) -> None:
    """Over 30 s, in windows: words in order, times inside the file."""
    wave, rate = soundfile.read(AUDIO[1])
    pause = np.random.default_rng(0).normal(0, 1e-4, rate)
    soundfile.write(tmp_path / "long.wav", np.concatenate([wave, pause] * 18), rate, subtype="FLOAT")
    (found,) = rec.transcribe([tmp_path / "long.wav"])
    assert found.seconds == 36.0 and found.text == " ".join(word.text for word in found.words)
    ends = [0.0, *(word.end for word in found.words)]
    assert all(end <= word.start < word.end <= 36.0 for end, word in zip(ends, found.words, strict=False))


def test_a_spike_that_was_cut_is_one_spike() -> None:
    def part(units: list[int], starts: list[int], ends: list[int], heights: list[float], score: float) -> Aligned:
        values = np.array(heights)
        found = Alignment(np.array(starts), np.array(ends), np.array(starts), values, values, score)
        return Aligned(units, found, None)

    whole = part([5, 6], [0, 3], [1, 5], [0.5, 0.6], -1.0).joined(part([6, 6], [5, 8], [6, 9], [0.9, 0.8], -2.0))
    assert whole.units == [5, 6, 6]
    assert whole.found.starts.tolist() == [0, 3, 8] and whole.found.ends.tolist() == [1, 6, 9]
    assert whole.found.peaks.tolist() == [0, 5, 8] and whole.found.heights.tolist() == [0.5, 0.9, 0.8]
    assert whole.found.means.tolist() == pytest.approx([0.5, 0.7, 0.8]) and whole.found.score == -3.0
    apart = part([5], [0], [1], [0.5], 0.0).joined(part([5], [2], [3], [0.5], 0.0))
    assert apart.units == [5, 5]


# ---- the command


def test_files_folders_and_manifests_give_the_same(run: Any, rec: Recognizer, tmp_path: Path) -> None:
    texts = [one.text for one in rec.transcribe(AUDIO, 2)]
    expected = [f"{path}\t{text}" for path, text in zip(AUDIO, texts, strict=True)]
    assert run(*AUDIO, "--layer", 2) == run(CORPUS, "--layer", 2) == expected
    lines = [str(CORPUS), *(f"{path.name}\t{soundfile.info(path).frames}" for path in AUDIO)]
    (tmp_path / "test.tsv").write_text("\n".join(lines) + "\n")
    assert run(tmp_path / "test.tsv", "--layer", 2, "--out", tmp_path / "t.txt") == []
    assert (tmp_path / "t.txt").read_text().splitlines() == expected


def test_standard_input(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = io.BytesIO(AUDIO[1].read_bytes())
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=given, isatty=lambda: False))
    assert run("-") == ["-\tIT IS"]


def test_one_file_per_audio(run: Any, tmp_path: Path) -> None:
    run(*AUDIO[:2], "--output", "srt", "--out", tmp_path / "subtitles")
    assert sorted(path.name for path in (tmp_path / "subtitles").iterdir()) == ["test0.srt", "test1.srt"]
    run(AUDIO[1], "--output", "vtt", "--out", tmp_path / "a.vtt")
    assert (tmp_path / "a.vtt").read_text().startswith("WEBVTT\n\n00:00:00.")


def test_a_broken_file_is_listed(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.flac"
    bad.write_bytes(AUDIO[0].read_bytes()[:400])
    with pytest.raises(PartialResult, match=rf"^1 audio file has no transcript, the others are written:\n  {bad}: "):
        run(bad, AUDIO[1])
    assert capsys.readouterr().out == f"{AUDIO[1]}\tIT IS\n"


def test_known_texts(run: Any, tmp_path: Path) -> None:
    found = json.loads(run(AUDIO[1], "--text", "IT IS", "--output", "jsonl")[0])
    assert found == json.loads(run(AUDIO[1], "--output", "jsonl")[0])
    (tmp_path / "text").write_text("test0 TEN ON\ntest1\tIT IS\n")
    lines = run(*AUDIO[:2], "--text-file", tmp_path / "text", "--output", "ctm")
    assert [line.split()[0::4] for line in lines] == [
        [f"test{n}", word] for n, word in ((0, "TEN"), (0, "ON"), (1, "IT"), (1, "IS"))
    ]
    with pytest.raises(UserError, match=r"^the text 'it is' has symbols .* \('i', 't', 's'\): write it in upper case$"):
        run(AUDIO[1], "--text", "it is")
    with pytest.raises(PartialResult, match="needs .* frames, the audio has 49"):
        run(AUDIO[1], "--text", "A" * 60)


def test_a_table_for_manifest(run: Any, tmp_path: Path) -> None:
    """The start of a pseudo-labelling loop: what manifest table accepts."""
    run(
        *AUDIO,
        "--min-confidence",
        0.99,
        "--table",
        tmp_path / "pseudo.tsv",
        "--out",
        tmp_path / "all.jsonl",
        "--output",
        "jsonl",
    )
    every = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    kept = [one for one in every if one["confidence"] >= 0.99 and one["text"]]
    assert 0 < len(kept) < len(every)
    out = tmp_path / "manifests"
    manifest.main(["table", str(tmp_path / "pseudo.tsv"), "--audio-root", str(CORPUS), "--out", str(out)])
    assert (out / "train.wrd").read_text().splitlines() == [one["text"] for one in kept]


def test_a_language_model_brings_its_words(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("flashlight.lib.text.decoder", reason="flashlight-text has no wheel for this Python")
    (tmp_path / "text").write_text("IT AS\nTEN ON\nGO SO\n")
    ngram.main([str(tmp_path / "text"), "--order", "2", "--out", str(tmp_path / "2gram.arpa")])
    *_, line = run(AUDIO[1], "--lm", tmp_path / "2gram.arpa", "--output", "jsonl", "--nbest", 2)
    found = json.loads(line)
    assert found["text"] == " ".join(word["text"] for word in found["words"]) != "IT IS"
    assert found["text"].endswith(" AS") and set(found["text"].split()) <= {"IT", "AS", "TEN", "ON", "GO", "SO"}
    assert all(one["end"] <= other["start"] for one, other in itertools.pairwise(found["words"]))
    (tmp_path / "units").write_text("I T | I S |\n")
    ngram.main([str(tmp_path / "units"), "--order", "2", "--out", str(tmp_path / "units.arpa")])
    with pytest.raises(UserError, match="knows 4 of the"):
        run(AUDIO[1], "--lm", tmp_path / "units.arpa")


def test_phrases(run: Any, rec: Recognizer, tmp_path: Path) -> None:
    """With and without a language model, with other hypotheses, and from Python."""
    pytest.importorskip("flashlight.lib.text.decoder", reason="flashlight-text has no wheel for this Python")
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("TEN\n")
    assert [line.partition("\t")[2] for line in run(AUDIO[0])] == ["TE EN ON"]
    assert [line.partition("\t")[2] for line in run(AUDIO[0], "--phrases", phrases)] == ["TEN ON"]
    assert [line.partition("\t")[2] for line in run(AUDIO[1], "--phrases", phrases)] == ["IT IS"]
    *_, line = run(AUDIO[0], "--phrases", phrases, "--phrase-weight", 0.5, "--nbest", 3, "--output", "jsonl")
    found = json.loads(line)
    assert [one["text"] for one in found["nbest"]] == ["TE EN ON", "TE E EN ON", "TEN ON"]
    (tmp_path / "text").write_text("IT AS\nNO ON\n")
    ngram.main([str(tmp_path / "text"), "--order", "2", "--out", str(tmp_path / "2gram.arpa")])
    *_, line = run(AUDIO[0], "--lm", tmp_path / "2gram.arpa", "--phrases", phrases, "--output", "jsonl")
    found = json.loads(line)  # the model's words are the lexicon, with TEN
    assert found["text"] == "TEN ON" and [word["text"] for word in found["words"]] == ["TEN", "ON"]
    search = beam_search(rec.dictionary, rec.post_process, phrases=phrases)
    assert [one.text for one in rec.transcribe(AUDIO[:1], search=search)] == ["TEN ON"]
    phrases.write_text("Ten\n")
    with pytest.raises(UserError, match=r"phrases\.txt line 1: 'Ten' has symbols .* write it in upper case"):
        run(AUDIO[0], "--phrases", phrases)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--phrase-weight", "-1"], r"^--phrase-weight -1\.0 is out of range: give a number from 0 to 1000$"),
        (["--phrases", "gone.txt"], "phrases gone.txt does not exist"),
        (["--phrases", "a", "--text", "IT"], "leave out --lm, --phrases and --nbest"),
        (["--output", "srt"], "--output srt has one file per audio file, and there are 2: give --out DIR"),
        (["--nbest", "2"], "--nbest 2 cannot be written as txt: give --output jsonl"),
        (["--table", "a.tsv"], "--table and --min-confidence belong together"),
        (["--table", "a.csv", "--min-confidence", "0"], "give a name that ends in .tsv"),
        (["--text", "A"], "--text is the text of one audio file, and there are 2: give --text-file FILE"),
        (["--lexicon", "a"], "--lexicon a is used with a language model only"),
        (["gone.wav"], "AUDIO gone.wav does not exist"),
        ([os.devnull], "AUDIO /dev/null is a pipe or a device: give a file, or - "),
        (["--lm-weight", "nan"], "^--lm-weight nan is not finite: give a number$"),
        ([str(AUDIO[0])], "AUDIO test0.flac twice|AUDIO names .* twice"),
        (["--lm", "gone.arpa"], "language model gone.arpa does not exist"),
    ],
)
def test_mistakes(options: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        transcribe.main([HUBERT, *map(str, AUDIO[:2]), *options])


def test_a_table_has_single_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ``|`` in a row are two spaces in the text, which ``manifest table`` refuses."""

    def two_spaces(*given: Any) -> Any:
        word = Word("GO", 0.0, 0.1, 1.0)
        yield 0, Transcript("GO  ON ", (word, word), 1.0, 1.0, 0.0)

    monkeypatch.setattr(Transcriber, "transcribe", two_spaces)
    table = tmp_path / "t.tsv"
    transcribe.main([HUBERT, str(AUDIO[0]), "--table", str(table), "--min-confidence", "0.5", "--device", "cpu"])
    assert table.read_text() == f"path\ttext\tsplit\n{AUDIO[0]}\tGO ON\ttrain\n"


def test_each_audio_file_has_a_name_of_its_own(run: Any, tmp_path: Path) -> None:
    """``c.wav`` beside ``c.flac`` keeps its suffix, which ``c.wav.flac`` would lose."""
    audio = [tmp_path / name for name in ("c.flac", "c.wav", "c.wav.flac", "x/c d.flac", "y/c d.flac", "x/c_d.flac")]
    for path in audio:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(AUDIO[1].read_bytes())
    run(tmp_path, "--output", "srt", "--out", tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.srt"))) == len(audio)
    with pytest.raises(UserError, match=r"^AUDIO .*/x/c d\.flac and .*/x/c_d\.flac have the same name in ctm: "):
        run(tmp_path, "--output", "ctm")
    (tmp_path / "text").write_text("c d\tIT IS\n")
    with pytest.raises(UserError, match=r"text: c d names .*/x/c d\.flac and .*/y/c d\.flac: write their paths$"):
        run(*audio[3:5], "--text-file", tmp_path / "text")


def test_names_that_are_no_plain_text(run: Any, tmp_path: Path) -> None:
    (tmp_path / "a\nb.flac").write_bytes(AUDIO[1].read_bytes())
    with pytest.raises(UserError, match="^AUDIO .*/a b.flac cannot be named in txt: "):
        run(tmp_path)
    assert json.loads(run(tmp_path, "--output", "jsonl")[0])["text"] == "IT IS"
    if sys.platform == "linux":  # elsewhere such a name cannot be made
        (tmp_path / os.fsdecode(b"\xe9.flac")).write_bytes(AUDIO[1].read_bytes())
        with pytest.raises(PartialResult, match="its name is not UTF-8: rename it$"):
            run(tmp_path, "--output", "jsonl")
    raw = tmp_path / "a.raw"
    raw.write_bytes(b"\0" * 2000)
    with pytest.raises(PartialResult, match=r"^1 audio file has no transcript.*\n  .*/a\.raw: "):
        run(raw)


def test_files_that_are_read_are_not_replaced(run: Any, tmp_path: Path) -> None:
    audio, text = tmp_path / "a.flac", tmp_path / "text"
    audio.write_bytes(AUDIO[1].read_bytes())
    text.write_text("a IT IS\n")
    with pytest.raises(UserError, match=r"^--out .*a\.flac would replace a file that is read: give another name$"):
        run(AUDIO[0], audio, "--out", audio)
    with pytest.raises(UserError, match="^--out .*text would replace a file that is read"):
        run(audio, "--text-file", text, "--out", text)
    table = ("--table", tmp_path / "t.tsv", "--min-confidence", 0)
    with pytest.raises(UserError, match=r"^--table .* would replace a file that --out writes: give another name$"):
        run(audio, "--out", tmp_path / "t.tsv", *table)
    with pytest.raises(UserError, match=r"^--out .*text is a file, and srt goes to a folder: give another name$"):
        run(audio, "--output", "srt", "--out", text)
    assert audio.read_bytes() == AUDIO[1].read_bytes() and text.read_text() == "a IT IS\n"
