import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fairseq_skd.demo import corpus
from fairseq_skd.demo.corpus import Voice, open_synthesiser
from fairseq_skd.errors import UserError

TABLE = Path(__file__).parents[2] / "manifests" / "demo.tsv"


def of_split(split):
    return [utterance for utterance in corpus.draw_utterances() if utterance.split == split]


def test_splits_share_no_sentence_and_no_path():
    utterances = corpus.draw_utterances()
    assert len({u.text for u in utterances}) == len(utterances)
    assert len({u.path for u in utterances}) == len(utterances)
    assert {split: len(of_split(split)) for split in corpus.SPLIT_SIZES} == corpus.SPLIT_SIZES


def test_one_voice_speaks_only_in_the_test_split_and_four_or_more_in_training():
    train, valid, test = ({u.speaker for u in of_split(split)} for split in ("train", "valid", "test"))
    assert len(train) >= 4
    assert valid <= train
    assert test - train == {corpus.TEST_VOICE}
    assert train <= test


def test_texts_use_the_alphabet_and_all_words_are_in_training():
    utterances = corpus.draw_utterances()
    assert all(re.fullmatch(r"[A-Z']+( [A-Z']+)*", u.text) for u in utterances)
    words = {split: {word for u in of_split(split) for word in u.text.split()} for split in corpus.SPLIT_SIZES}
    assert words["valid"] | words["test"] <= words["train"]
    assert any("'" in word for word in words["test"])


def test_the_table_in_manifests_is_what_is_drawn():
    assert TABLE.read_text(encoding="utf-8") == corpus.table_text(corpus.draw_utterances(seed=1))


def test_the_seed_decides_the_sentences():
    assert corpus.draw_utterances(seed=3) == corpus.draw_utterances(seed=3)
    assert corpus.draw_utterances(seed=3) != corpus.draw_utterances(seed=4)


def test_the_voice_of_an_utterance_depends_only_on_the_utterance():
    first, second = corpus.draw_utterances()[:2]
    assert corpus.voice_of(first) == corpus.voice_of(first)
    assert corpus.voice_of(first).name == first.speaker
    assert corpus.voice_of(first) != corpus.voice_of(second)


@pytest.fixture
def espeak():
    pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed")


@pytest.mark.usefixtures("espeak")
def test_audio_is_16_khz_mono_and_differs_by_voice(tmp_path, at_once, capsys):
    utterances = [
        corpus.Utterance("a/1.flac", "OPEN THE RED DOOR", "a", "en-us+m3"),
        corpus.Utterance("a/2.flac", "OPEN THE RED DOOR", "a", "en-us+f2"),
    ]
    corpus.write_audio(utterances, tmp_path)
    assert "speaking: 2 of 2 (100 %)" in capsys.readouterr().err
    waveforms = []
    for utterance in utterances:
        info = soundfile.info(tmp_path / utterance.path)
        assert (info.samplerate, info.channels, info.format, info.subtype) == (16000, 1, "FLAC", "PCM_16")
        assert 0.7 < info.duration < 2.5  # four words
        waveforms.append(soundfile.read(tmp_path / utterance.path)[0])
        assert np.abs(waveforms[-1]).max() > 0.1
    first, second = (np.abs(np.fft.rfft(waveform, 32768)) for waveform in waveforms)
    assert np.corrcoef(first, second)[0, 1] < 0.9


def speak(synthesiser, text, **settings):
    return synthesiser.speak(text, Voice("en-us+m3", **settings)).waveform


@pytest.mark.usefixtures("espeak")
def test_rate_and_pitch_change_the_audio():
    def dominant(waveform, sample_rate):  # Hz, the strongest partial below 1 kHz
        spectrum = np.abs(np.fft.rfft(waveform, sample_rate))
        return int(spectrum[50:1000].argmax()) + 50

    with open_synthesiser() as synthesiser:
        slow, fast = (speak(synthesiser, "one two three four", rate=rate) for rate in (120, 240))
        low, high = (speak(synthesiser, "aaaah", pitch=pitch) for pitch in (10, 90))
        assert len(slow) > 1.5 * len(fast)
        assert slow.dtype == np.float32
        assert dominant(low, synthesiser.sample_rate) != dominant(high, synthesiser.sample_rate)


@pytest.mark.usefixtures("espeak")
@pytest.mark.slow
def test_the_same_texts_sound_the_same_in_each_process():
    """The breath of this voice is noise; unseeded, it would differ."""
    program = (
        "import hashlib; from fairseq_skd.demo.corpus import Voice, open_synthesiser\n"
        "with open_synthesiser() as synthesiser:\n"
        "    for text in ('one two', 'open the door', 'open the door'):\n"
        "        spoken = synthesiser.speak(text, Voice('en-us+f2')).waveform\n"
        "        print(len(spoken), hashlib.sha256(spoken.tobytes()).hexdigest())\n"
    )
    command, environment = [sys.executable, "-c", program], {**os.environ, "PYTHONPATH": str(TABLE.parents[1])}
    first, second = (subprocess.run(command, env=environment, check=True, capture_output=True) for _ in range(2))
    assert first.stdout == second.stdout and len(first.stdout.splitlines()) == 3


def test_starts_from_events_made_by_hand():
    """Positions count characters from 1, with accents too; the first event of a word counts."""
    text = "été to  O'CLOCK 21 in the twenty-one"
    events = [(1, 0), (5, 210), (8, 400), (9, 420), (17, 900), (18, 1000), (20, 1500), (34, 2100)]
    assert corpus.word_starts(text, [corpus.WordEvent(*event) for event in events]) == [
        *(0.0, 0.21),
        0.42,  # 8 is the space before it
        *(0.9, 1.5),
        None,  # no event
        None,  # its only event is at "one"
    ]
    assert corpus.word_starts("to", []) == [None]


@pytest.mark.usefixtures("espeak")
def test_espeaks_starts_rise_within_the_audio():
    with open_synthesiser() as synthesiser:
        spoken = synthesiser.speak("move the box in the room", Voice("en-us+m3"))
        again = synthesiser.speak("two", Voice("en-us+m3"))
        rate = synthesiser.sample_rate
    known = [start for start in spoken.starts if start is not None]
    assert [start is None for start in spoken.starts] == [False, False, False, False, True, False]  # "in the" is one
    assert known == sorted(set(known)) and known[0] == 0 and 0.5 < known[-1] < len(spoken.waveform) / rate - 0.1
    assert again.starts == [0]  # nothing is left of the call before


@pytest.mark.usefixtures("espeak")
def test_a_word_sounds_from_its_start_in_the_written_audio(tmp_path, at_once):
    """S is mostly above 3 kHz; vowels and M, which end these words, are below."""

    def share_above_3_khz(samples):
        power = np.abs(np.fft.rfft(samples)) ** 2
        return power[len(samples) * 3000 // 16000 :].sum() / power.sum()

    utterance = corpus.Utterance("a/1.flac", "SAM SAW SOME SAND", "a", "en-us+m3")
    starts = corpus.write_audio([utterance], tmp_path)["a/1.flac"]
    audio, _ = soundfile.read(tmp_path / utterance.path)
    window = 400  # 25 ms
    for start in starts[1:]:
        place = round(start * 16000)
        assert share_above_3_khz(audio[place - window : place]) < 0.1
        assert share_above_3_khz(audio[place : place + window]) > 0.6


@pytest.mark.usefixtures("espeak")
def test_the_written_corpus(tmp_path, monkeypatch, at_once, capsys):
    utterances = [
        corpus.Utterance("a/1.flac", "GO IN THE BOX", "a", "en-us+m3"),
        corpus.Utterance("a/2.flac", "DON'T GO", "a", "en-us+f2"),
    ]
    monkeypatch.setattr(corpus, "draw_utterances", lambda seed: utterances)
    corpus.write_corpus(tmp_path)
    assert capsys.readouterr().out == f"{tmp_path}/words.tsv: 6 words, 1 of them without a start\n"
    assert (tmp_path / "demo.tsv").read_text() == corpus.table_text(utterances)
    header, *lines = [line.split("\t") for line in (tmp_path / "words.tsv").read_text().splitlines()]
    assert header == ["path", "word", "start"]
    assert [line[:2] for line in lines] == [[u.path, word] for u in utterances for word in u.text.split()]
    starts = [line[2] for line in lines]
    assert starts[0] == starts[4] == "0.000" and starts[2] == ""
    assert all(re.fullmatch(r"0\.\d{3}", start) for start in (starts[1], starts[3], starts[5]))


@pytest.mark.usefixtures("espeak")
@pytest.mark.parametrize("name", ["en-us+nobody", "nowhere+f2", "nowhere"])
def test_an_unknown_voice_is_refused(name):
    with open_synthesiser() as synthesiser, pytest.raises(UserError, match=rf"no voice '{re.escape(name)}'"):
        synthesiser.speak("hello", Voice(name))


@pytest.mark.usefixtures("espeak")
def test_data_path_longer_than_espeaks_buffer(tmp_path, monkeypatch):
    import espeakng_loader

    folder = tmp_path / ("x" * 80) / ("y" * 80)
    folder.mkdir(parents=True)
    (folder / "espeak-ng-data").symlink_to(espeakng_loader.get_data_path(), target_is_directory=True)
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(folder / "espeak-ng-data"))
    with open_synthesiser() as synthesiser:
        assert len(synthesiser.speak("hello", Voice("en-us+f2")).waveform) > 1000


def test_loader_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with (
        pytest.raises(UserError, match="espeakng-loader is not installed: pip install espeakng-loader"),
        open_synthesiser(),
    ):
        pass
