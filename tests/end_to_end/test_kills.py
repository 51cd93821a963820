"""A training that is killed while it saves: no checkpoint is half-written, and it can resume."""

import os
import subprocess
import sys

import pytest

from tests.builders import write_pretrained
from tests.end_to_end.training import REPOSITORY, SMALL, corpus


@pytest.mark.faults
@pytest.mark.slow
def test_a_kill_while_saving_leaves_whole_checkpoints(tmp_path):
    """X3: kill -9 while last and best were copied left files of 0 bytes.

    Three killed runs resume and reach the same parameters.
    """
    data, hubert = corpus(tmp_path / "data"), write_pretrained(tmp_path / "hubert.pt")
    overrides = [*SMALL, "optimization.max_update=8", "checkpoint.save_interval_updates=2", "dataset.num_workers=0"]
    # A metric that falls each time, so the best checkpoint is always written.
    overrides += ["dataset.validate_interval_updates=2", "checkpoint.best_checkpoint_metric=ctc_student"]
    overrides += [f"task.data={data}", f"model.w2v_path={hubert}"]
    result = subprocess.run(
        [sys.executable, "-m", "tests.end_to_end.killing", str(tmp_path / "runs"), *overrides],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    killed, files, resumed = map(int, result.stdout.splitlines()[-1].split())
    assert killed >= 50 and files >= 3 * killed and resumed == 3
