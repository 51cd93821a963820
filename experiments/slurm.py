r"""Run a grid on Slurm, one job per arm and seed; config/run/slurm.yaml has the keys.

python -m experiments.slurm --multirun arm=ctc,skd seed=1,2,3 out=/runs \
    task.data=/data/manifests model.w2v_path=/models/hubert_mini.pt
"""

import subprocess
import sys
from typing import Any

import hydra
from hydra.utils import to_absolute_path

from experiments.grid import REPOSITORY
from fairseq_skd.errors import UserError, require, run_command


def job(cfg: Any) -> None:
    """Run one arm with one seed, in a process of its own.

    Raises:
        subprocess.CalledProcessError: the run failed or was not done. The reason is in the job's
            log.
    """
    command = [
        *(sys.executable, "-m", "experiments.run_grid", to_absolute_path(cfg.grid), "--out", to_absolute_path(cfg.out)),
        *("--arms", cfg.arm, "--seeds", str(cfg.seed), *(["--tries"] if cfg.tries else [])),
        *(f"task.data={to_absolute_path(cfg.task.data)}", f"model.w2v_path={to_absolute_path(cfg.model.w2v_path)}"),
        *cfg.overrides,
    ]
    subprocess.run(command, check=True, cwd=REPOSITORY)


def main() -> None:
    """Submit the jobs and wait for them."""
    require(["submitit"], "slurm", "experiments.slurm, from Python 3.11 on,")
    given = {argument.partition("=")[0] for argument in sys.argv[1:]}
    for key in ("arm", "out", "task.data", "model.w2v_path"):
        if key not in given and not given & {"--help", "-h", "--cfg", "--info"}:
            raise UserError(f"{key} is not set: give {key}=...")
    if "--cfg" in given and given & {"--multirun", "-m"}:
        raise UserError("--cfg shows one job: remove --multirun")
    hydra.main(config_path=str(REPOSITORY / "config" / "run"), config_name="slurm", version_base="1.3")(job)()


if __name__ == "__main__":
    sys.exit(run_command("slurm", main))
