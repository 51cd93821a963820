"""A grid's runs as jobs of Slurm, one for each arm and seed; config/run/slurm.yaml says how.

python experiments/slurm.py --multirun arm=ctc,skd seed=1,2,3 out=/runs task.data=/data model.w2v_path=/models/hubert.pt
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.utils import to_absolute_path

GRID_RUNNER = Path(__file__).resolve().with_name("run_grid.py")


@hydra.main(config_path="../config/run", config_name="slurm", version_base="1.3")
def main(cfg: Any) -> None:
    """One job: one arm, one seed, in a process of its own.

    Raises:
        subprocess.CalledProcessError: it failed, or was not done; the job's log says why.
    """
    command = [
        *(sys.executable, str(GRID_RUNNER), to_absolute_path(cfg.grid), "--out", to_absolute_path(cfg.out)),
        *("--arms", cfg.arm, "--seeds", str(cfg.seed), *(["--tries"] if cfg.tries else [])),
        *(f"task.data={to_absolute_path(cfg.task.data)}", f"model.w2v_path={to_absolute_path(cfg.model.w2v_path)}"),
        *cfg.overrides,
    ]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
