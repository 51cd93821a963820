"""Opening sound files: libmpg123 is silent, everybody else is heard."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fairseq_skd.corpora.audio import Audio, inspect
from fairseq_skd.errors import UserError
from fairseq_skd.files.sound import open_forward, quiet
from fairseq_skd.files.stream import read_blocks
from fairseq_skd.files.waveforms import read_audio

NOTE = b"Note: Trying to resync...\n"
ERROR = b"[src/libmpg123/layer3.c:INT123_do_layer3():1774] error: part2_3_length (1088) too large\n"


@pytest.fixture
def mp3(tmp_path: Path) -> Path:
    """Write four seconds, loud and soft in turns: the bit rate varies; with a table (Xing)."""
    draw = np.random.default_rng(5)
    wave = np.concatenate([draw.normal(0, size, 8000) for size in [0.2, 0.0001] * 4])
    path = tmp_path / "a.mp3"
    soundfile.write(path, wave, 16000, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    return path


def damage(path: Path) -> None:
    """Overwrite the middle."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)


def without_table(path: Path) -> None:
    """Remove the first frame, so that the length becomes a guess from the bit rate of the next."""
    content = path.read_bytes()
    assert content.find(b"Xing") < 64
    path.write_bytes(content[content.find(content[:2], 4) :])


def test_lines_of_the_decoder_are_kept_and_others_written(capfd):
    with quiet() as said:
        os.write(2, NOTE + b"2 of 3 files\n" + ERROR)
        assert said == []
    assert said == [NOTE.decode().strip(), ERROR.decode().strip()]
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "2 of 3 files\nafter\n"


def test_very_many_lines_do_not_block(capfd):
    with quiet() as said:
        for _ in range(2000):
            try:
                os.write(2, ERROR)
            except BlockingIOError:  # as fprintf in libmpg123 sees it
                break
    assert len(said) > 100 and capfd.readouterr().err == ""


def test_an_error_leaves_stderr_as_it_was(capfd):
    with pytest.raises(ValueError, match="inside"), quiet():
        raise ValueError("inside")
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"


def test_threads_take_turns_and_no_descriptor_is_lost(capfd):
    before = len(os.listdir("/proc/self/fd"))

    def work() -> None:
        for _ in range(200):
            with quiet():
                os.write(2, NOTE)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(os.listdir("/proc/self/fd")) == before
    assert capfd.readouterr().err == ""


def test_a_process_without_stderr():
    saved = os.dup(2)
    os.close(2)
    try:
        with quiet() as said:
            pass
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    assert said == []


def test_a_whole_file_does_not_go_on(mp3: Path):
    with open_forward(str(mp3)) as file:
        while len(block := file.read(min(10000, file.frames - file.decoded), dtype="float32")):
            file.decoded += len(block)
        assert file.decoded == 64000 and not file.goes_on()


@pytest.mark.faults
def test_the_rest_of_a_file_without_a_table_is_not_lost_silently(mp3: Path):
    """libsndfile guesses half the length, and reads no further: half a text."""
    without_table(mp3)
    with pytest.raises(UserError, match=r"a\.mp3 cannot be read: it goes on after the \d+ samples of its header"):
        list(read_blocks(mp3, 16000))


@pytest.mark.faults
@pytest.mark.parametrize("read", [read_audio, lambda path: list(read_blocks(path, 16000))])
def test_damage_is_one_quiet_sentence(mp3: Path, read, capfd):
    damage(mp3)
    with pytest.raises(UserError, match=r"it decodes to \d+ samples, but its header lists 64000: .*; Note: Illegal"):
        read(mp3)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("tag", [10, 5000, 100_000])
def test_tags_are_not_missing_audio(tmp_path: Path, tag: int, capfd):
    """Without a table, libmpg123 guesses the length from all bytes of the file, with its tags."""
    path = tmp_path / "a.mp3"
    wave = np.random.default_rng(5).normal(0, 0.1, 32000)
    soundfile.write(path, wave, 16000, format="MP3", bitrate_mode="CONSTANT", compression_level=0.5)
    content = path.read_bytes()
    content = content[content.find(content[:2], 4) :]
    path.write_bytes(content)
    expected = soundfile.read(path, dtype="float32")[0]
    path.write_bytes(b"ID3\x03\0\0\0" + bytes([tag >> 14 & 127, tag >> 7 & 127, tag & 127]) + bytes(tag) + content)
    with open_forward(str(path)) as file:
        assert file.frames > len(expected)
    assert np.array_equal(read_audio(path)[0], expected)
    assert np.array_equal(np.concatenate(list(read_blocks(path, 16000))), expected)
    assert inspect(str(path)) == Audio(len(expected), 16000, 1, mp3=True)
    path.write_bytes(path.read_bytes()[: -len(content) // 2] + bytes(80000) + content)
    with pytest.raises(UserError, match="it is damaged; Note: "):
        read_audio(path)
    assert capfd.readouterr().err == ""


def test_no_frame_at_all_is_quiet(tmp_path: Path, capfd):
    (tmp_path / "a.mp3").write_bytes(np.random.default_rng(1).bytes(5000))
    with pytest.raises(UserError):
        read_audio(tmp_path / "a.mp3")
    assert capfd.readouterr().err == ""


def test_junk_before_the_first_frame(mp3: Path):
    expected = read_audio(mp3)[0]
    mp3.write_bytes(bytes(1000) + mp3.read_bytes())
    assert np.array_equal(read_audio(mp3)[0], expected)
