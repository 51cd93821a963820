"""A grid as Slurm jobs, through submitit and stand-ins for Slurm's commands."""

import json
import os
import re
import subprocess
import sys

import pytest

from experiments.grid import REPOSITORY
from experiments.pairs import compare_folders
from fairseq_skd.errors import UserError
from tests.builders import write_pretrained
from tests.end_to_end.training import SMALL, corpus

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher wants Python 3.11")
from experiments import slurm as slurm_app

GRID = """
corpus: tiny
config: hubert_mini
seeds: [1]
subsets: [valid]
common: {SETTINGS}
decode: {{dataset.max_tokens: 32000, common.cpu: true}}
tries: {{}}
arms:
  skd: {{exits: [4, 2], set: {{criterion.kd_weight: 0.5}}}}
claims: []
"""
# What submitit needs of Slurm: run a script later, start a program in a task, report job states.
SBATCH = """
import os, subprocess, sys
print("Submitted batch job 7", flush=True)
if os.fork():
    os._exit(0)
os.setsid()
for stream in (0, 1, 2):  # the caller waits until these are closed
    os.dup2(os.open(os.devnull, os.O_RDWR), stream)
variables = {"JOB_ID": 7, "NTASKS": 1, "JOB_NUM_NODES": 1, "NODEID": 0, "PROCID": 0, "LOCALID": 0}
variables["JOB_NODELIST"] = "node1"
environment = {**os.environ, **{f"SLURM_{name}": str(value) for name, value in variables.items()}}
subprocess.run(["bash", sys.argv[-1]], env=environment)
open(os.path.join(os.path.dirname(__file__), "done"), "w").close()
"""
SRUN = """
import os, sys
program = sys.argv[sys.argv.index("-u") - 1 :]  # srun's own options come before
os.execv(program[0], program)
"""
SACCT = """
import os
state = "COMPLETED" if os.path.exists(os.path.join(os.path.dirname(__file__), "done")) else "RUNNING"
print(f"JobID|State|NodeList\\n7|{state}|node1")
"""


@pytest.fixture
def slurm(tmp_path) -> dict[str, str]:
    """The environment of a machine that has Slurm's commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        (folder / name).write_text(f"#!{sys.executable}\n{text}")
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def submit(environment: dict[str, str], *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.slurm", *overrides]
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_a_job_is_a_run_of_the_grid(tmp_path, slurm):
    settings = ", ".join(f'{key}: "{value}"' for key, _, value in (part.partition("=") for part in SMALL))
    (tmp_path / "grid.yaml").write_text(GRID.format(SETTINGS=f"{{{settings}}}"))
    corpus(tmp_path / "data")
    write_pretrained(tmp_path / "hubert.pt", seed=3)
    given = [
        *("--multirun", "arm=skd", f"grid={tmp_path / 'grid.yaml'}", f"out={tmp_path / 'runs'}"),
        *(f"task.data={tmp_path / 'data'}", f"model.w2v_path={tmp_path / 'hubert.pt'}"),
        *("hydra.launcher.partition=gpu", "hydra.launcher.timeout_min=90"),
    ]
    done = submit(slurm, *given, 'overrides=["optimization.max_update=4"]')
    assert done.returncode == 0, done.stdout[-3000:]
    result = json.loads((tmp_path / "runs" / "results.jsonl").read_text())
    assert (result["arm"], result["seed"], result["updates"]) == ("skd", 1, 4)
    assert [(score["subset"], score["exit"]) for score in result["scores"]] == [("valid", 4), ("valid", 2)]
    assert [found["exit"] for found in result["alignment"]] == [2]
    places = [[tmp_path / "runs" / "tiny" / "skd" / "seed1" / "decode" / f"valid-layer{layer}"] for layer in (2, 4)]
    assert compare_folders(*places, "utterances", "cer").startswith("3 utterances, 3 utterances drawn, cer % [95 %]: ")
    places = [tmp_path / "runs" / "tiny" / "skd" / "seed1" / "align" / "layer2"]
    assert "difference, points: 0.0 [0.0, 0.0]" in compare_folders(places, places, "utterances", "spikes")
    (script,) = (tmp_path / "runs" / "slurm" / ".submitit").rglob("*_submission.sh")
    asked = script.read_text()
    assert {"#SBATCH --partition=gpu", "#SBATCH --time=90", "#SBATCH --cpus-per-task=8"} <= set(asked.splitlines())
    assert {"#SBATCH --gpus-per-node=1", "#SBATCH --mem=32GB"} <= set(asked.splitlines())


def test_the_configuration_composes():
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(REPOSITORY / "config" / "run"), version_base="1.3"):
        config = compose("slurm", ["arm=skd", "out=/runs"], return_hydra_config=True)
    assert config.hydra.launcher._target_.endswith("SlurmLauncher")
    assert (config.grid, config.seed, config.hydra.sweep.subdir) == ("experiments/an4.yaml", 1, "skd-1")


def test_a_job_cannot_be_shown_for_many(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["slurm.py", "--multirun", "arm=ctc,skd", "--cfg", "job"])
    with pytest.raises(UserError, match="^--cfg shows one job: remove --multirun$"):
        slurm_app.main()


@pytest.mark.parametrize("missing", ["arm", "out", "task.data", "model.w2v_path"])
def test_a_missing_key_is_named(monkeypatch, missing):
    given = {"arm": "skd", "out": "/runs", "task.data": "/data", "model.w2v_path": "/w.pt"}
    arguments = [f"{key}={value}" for key, value in given.items() if key != missing]
    monkeypatch.setattr(sys, "argv", ["slurm.py", "--multirun", *arguments])
    with pytest.raises(UserError, match=f"^{re.escape(missing)} is not set: give {re.escape(missing)}="):
        slurm_app.main()
