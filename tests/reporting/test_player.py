import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
import soundfile
from PIL import Image

from fairseq_skd.reporting.player import LANE_HEIGHT, PER_SECOND, WAVE_HEIGHT, make_player, wave_path

NAMES = {"teacher": "teacher, 4 of 4 layers", "student": "student, 2 of 4 layers"}


@pytest.fixture
def folder(tmp_path):
    soundfile.write(tmp_path / "example-0.flac", np.linspace(-0.5, 0.25, 8000, dtype=np.float32), 16000)
    Image.new("RGB", (4, 3)).save(tmp_path / "spikes-0.png")
    return tmp_path


def spike(start, end, peak, symbol="A", other="same", posterior=0.5):
    return {"start": start, "end": end, "peak": peak, "symbol": symbol, "posterior": posterior, "other": other}


def example(**changes):
    return {
        "index": 0,
        "name": "a.wav",
        "text": "A",
        "audio": "example-0.flac",
        "figure": "spikes-0.png",
        "teacher": [],
        "student": [],
        **changes,
    }


def test_places_of_spikes(folder):
    """A frame is 20 ms, 4.8 pixels; a spike is drawn mid-frame and plays from its first frame."""
    spikes = [spike(5, 8, 6), spike(20, 21, 20, "|", "elsewhere", 1.0)]
    player = make_player(folder, example(teacher=spikes), 20.0, NAMES)
    teacher, student = player.lanes
    first, second = teacher.spikes
    assert (first.x, first.left, first.width) == (31.2, 24.0, 14.4)
    assert (first.seconds, first.ends) == (0.1, 0.16)
    assert first.label == "A at 0.13 s, posterior 0.50; the student has it on the same frames"
    assert second.label == "word boundary at 0.41 s, posterior 1.00; the student does not have it on these frames"
    assert second.height == 2 * first.height < LANE_HEIGHT
    assert teacher.spelt == "A␣"
    assert (student.name, student.spikes, student.spelt) == (NAMES["student"], [], "")
    assert player.width == 0.5 * PER_SECOND
    assert player.ticks == [0]  # the audio ends at 0.5


def test_a_mark_is_shown_on_a_circle_and_spelt_in_its_word(folder):
    spikes = [spike(5, 6, 5, "क"), spike(9, 10, 9, "\u093f"), spike(12, 13, 12, "|")]
    (lane, _) = make_player(folder, example(teacher=spikes), 20.0, NAMES).lanes
    assert [one.symbol for one in lane.spikes] == ["क", "◌\u093f", "␣"]
    assert lane.spelt == "कि␣"


def test_symbols_do_not_overlap(folder):
    spikes = [spike(t, t + 1, t) for t in (0, 1, 2, 3, 10)]
    levels = [one.level for one in make_player(folder, example(student=spikes), 20.0, NAMES).lanes[1].spikes]
    assert levels == [0, 1, 2, 0, 0]


def test_word_pieces_are_spelt_with_spaces(folder):
    pieces = [spike(0, 1, 0, "▁IN"), spike(2, 3, 2, "G")]
    assert make_player(folder, example(student=pieces), 20.0, NAMES).lanes[1].spelt == "▁IN G"


def test_audio_is_in_the_page(folder):
    player = make_player(folder, example(), 20.0, NAMES)
    kind, _, content = player.audio.partition(",")
    assert kind == "data:audio/flac;base64"
    waveform, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
    assert (len(waveform), rate) == (8000, 16000)


def test_wave_is_an_envelope():
    waveform = np.zeros(16000, np.float32)
    waveform[4000], waveform[12000] = 0.5, -0.25
    points = np.array(
        [[float(n) for n in pair] for pair in re.findall(r"([\d.-]+) ([\d.-]+)", wave_path(waveform, 1.0))]
    )
    assert points[:, 0].max() < PER_SECOND
    middle = WAVE_HEIGHT / 2
    loudest, lowest = points[points[:, 1].argmin()], points[points[:, 1].argmax()]
    assert loudest == pytest.approx([PER_SECOND / 4, 0], abs=2.1)
    assert lowest == pytest.approx([3 * PER_SECOND / 4, middle * 1.5], abs=2.1)


def test_silence_is_a_line():
    assert {point.split()[1] for point in wave_path(np.zeros(1600, np.float32), 0.1)[1:-2].split(" L")} == {"35.0"}


@pytest.mark.slow
def test_examples_of_align(runs, tmp_path):
    """The player reads what align writes."""
    shutil.copytree(runs / "skd" / "align", tmp_path / "align")
    found = json.loads((tmp_path / "align" / "align.json").read_text())
    for record in found["examples"]:
        player = make_player(tmp_path / "align", record, found["frame_ms"], NAMES)
        assert player.seconds == pytest.approx(record["seconds"])
        drawn = np.asarray(Image.open(tmp_path / "align" / record["figure"]).convert("RGB"), float)
        shown = base64.b64decode(player.figure.removeprefix("data:image/webp;base64,"))
        with Image.open(io.BytesIO(shown), formats=["WEBP"]) as image:
            assert np.abs(np.asarray(image.convert("RGB"), float) - drawn).mean() < 4  # of 255
        assert len(shown) < (tmp_path / "align" / record["figure"]).stat().st_size / 2
        for lane in player.lanes:
            assert len(lane.spikes) == len(record[lane.who])
            assert all(0 < one.x < player.width for one in lane.spikes)
