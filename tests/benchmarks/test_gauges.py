import sys

import pytest
import torch

from benchmarks.gauges import MIB, PeakMemory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.slow
def test_the_peak_is_that_since_the_start():
    before = torch.ones(64 * MIB // 4)
    del before
    peak = PeakMemory(torch.device("cpu"))
    held = torch.ones(32 * MIB // 4)
    del held
    assert 31 * MIB <= peak.above_start() <= 48 * MIB
