"""Start data-parallel training on the CPU: two gloo processes, as with torchrun."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.end_to_end.training import REPOSITORY


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_two(folder: Path, overrides: Sequence[str]) -> list[subprocess.Popen[str]]:
    """Start both processes; ``folder`` gets the checkpoints."""
    folder.mkdir(exist_ok=True)
    parallel = [
        *("distributed_training.distributed_world_size=2", "distributed_training.distributed_backend=gloo"),
        *("distributed_training.ddp_backend=no_c10d", "distributed_training.distributed_no_spawn=true"),
        f"distributed_training.distributed_init_method=tcp://127.0.0.1:{free_port()}",
    ]
    command = [
        *(sys.executable, "-m", "fairseq_cli.hydra_train", "--config-dir", str(REPOSITORY / "config" / "finetune")),
        *("--config-name", "hubert_mini", f"common.user_dir={REPOSITORY / 'fairseq_skd'}", *overrides, *parallel),
        f"checkpoint.save_dir={folder}",
    ]
    return [
        subprocess.Popen(
            [*command, f"distributed_training.distributed_rank={rank}", f"hydra.run.dir={folder / str(rank)}"],
            cwd=folder.parent,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]


def train_on_two(folder: Path, overrides: Sequence[str]) -> list[str]:
    """Train to the end; returns the output of each process."""
    workers = start_two(folder, overrides)
    outputs = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs[0][-3000:] + outputs[1][-3000:]
    return outputs
