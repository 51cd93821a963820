"""Clock and memory of the measured process."""

import contextlib
import ctypes
import gc
import time
from pathlib import Path

import torch

from fairseq_skd.errors import UserError

MIB = 2**20


def now(device: torch.device) -> float:
    """Return the wall clock in seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def resident() -> int:
    """Return the bytes of main memory that this process uses now."""
    return status("VmRSS")


def settle() -> None:
    """Release free memory, so that leftovers of the build do not hide the first step's needs."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


class PeakMemory:
    """Peak memory above the level at the start: resident size on a CPU, allocated tensors on a GPU.

    Not ``ru_maxrss``: it cannot be reset, so it keeps the peak of the build. Linux resets its own
    high-water mark (VmHWM) when 5 is written to ``clear_refs``.

    Raises:
        UserError: on a CPU, the system is not Linux.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        settle()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self.start = torch.cuda.memory_allocated(device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError as error:
            raise UserError("peak memory is read from /proc/self, which needs Linux: give --device cuda") from error
        self.start = resident()

    def above_start(self) -> int:
        """Return the bytes between the start and the peak since then."""
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else status("VmHWM")
        return peak - self.start


def status(key: str) -> int:
    """Return a field of ``/proc/self/status`` in bytes.

    Raises:
        UserError: the system is not Linux.
    """
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError as error:
        raise UserError("memory is read from /proc/self/status, which needs Linux: use another machine") from error
    for line in text.splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise UserError(f"/proc/self/status has no {key}: use another machine")
