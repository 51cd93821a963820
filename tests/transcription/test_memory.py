"""Peak memory of real recognition does not grow with the audio."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.goldens import cases

# In a process of its own: memory that other tests freed would hide what this one needs.
PROGRAM = """
import sys
import torch
from benchmarks.gauges import status
from benchmarks.long_audio import recognize
from fairseq_skd import load

torch.set_num_threads(1)
rec = load(sys.argv[1], exits=(2,), device="cpu")
for audio in sys.argv[2:]:
    print(recognize(rec, audio)["frames"], status("VmHWM"))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc/self, which needs Linux")
def test_three_and_nine_minutes_take_the_same_memory(tmp_path: Path) -> None:
    rng, files = np.random.default_rng(0), []
    for minutes in (1, 3, 9):  # the first one fills caches
        files.append(tmp_path / f"{minutes}.wav")
        with soundfile.SoundFile(files[-1], "w", 8000, 1, "PCM_16") as file:
            for second in range(60 * minutes):
                height = 0.0001 if second % 50 == 0 else 0.1  # some cuts are in pauses, some are not
                file.write(height * rng.standard_normal(8000))
    command = [sys.executable, "-c", PROGRAM, str(cases.HERE / "hubert.pt"), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (_, _), (three, before), (nine, after) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (three, nine) == (8999, 26999)
    assert after - before < 50e6
