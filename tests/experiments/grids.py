"""The grid that the tests run, its command-line settings, and commands that train nothing."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from experiments.grid import Grid
from experiments.runs import Run, Step, runs_of

GRID = """
corpus: tiny
config: hubert_mini
seeds: [1, 2]
subsets: [valid, test]
common: {optimization.max_update: 30}
decode: {dataset.max_tokens: 100000}
tries: {optimization.max_epoch: 1}
arms:
  ctc: {exits: [4], set: {"model.student_layers": "[]", checkpoint.best_checkpoint_metric: wer}}
  skd: {exits: [4, 2], set: {"model.student_layers": "[2]"}, tries: {criterion.kd_weight: [0.1, 1.0]}}
  kd:
    exits: [2]
    needs: ctc
    set:
      <<: {"model.student_layers": "[]", checkpoint.best_checkpoint_metric: wer}
      model.keep_layers: 2
      criterion._name: kd_ctc
      ~criterion.schedule:
      ~criterion.tau:
      ~criterion.alpha:
      ~criterion.stop_gradient:
      +criterion.teacher_path: "{teacher}"
claims:
  - {claim: the student wins, better: skd 2, worse: kd 2}
"""
GIVEN = {"task.data": Path("/data"), "model.w2v_path": Path("/w2v.pt")}

# Stand-ins for training, decoding and aligning. On request, training fails the first time and
# resumes the second time.
TRAIN = """
import json, pathlib, sys
folder, fails = pathlib.Path(sys.argv[1]), sys.argv[2] == "fails"
tries = folder / "tries"
n = int(tries.read_text()) + 1 if tries.exists() else 1
tries.write_text(str(n))
(folder / "checkpoints").mkdir(exist_ok=True)
(folder / "checkpoints" / "checkpoint_last.pt").touch()
if fails and n == 1:
    sys.exit("interrupted")
(folder / "checkpoints" / "checkpoint_best.pt").touch()
entry = {"valid_num_updates": "30", "valid_loss": "1.5"}
(folder / "hydra_train.log").write_text("[x][valid][INFO] - " + json.dumps(entry))
"""
DECODE = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
keys = "wer cer word_errors words character_errors characters sentences parameters"
for name in ("hypo.word", "ref.word"):
    (folder / name).touch()
(folder / "summary.json").write_text(json.dumps({key: int(sys.argv[2]) for key in keys.split()}))
"""
ALIGN = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
rate = {"value": 0.25, "low": 0.2, "high": 0.3}
rates = dict.fromkeys(("frame_disagreement", "spike_disagreement", "spike_miss"), rate)
found = {**rates, "offset": {"mean_ms": 5.0}, "subset": "test", "by_utterance": {}}
(folder / "align.json").write_text(json.dumps(found))
"""
# A job of pickled runs, all at a time. Like run_grid it ends its commands when it is terminated.
JOB = """
import pathlib, pickle, sys
from experiments import execution
from fairseq_skd import errors
file = pathlib.Path(sys.argv[1])
runs = pickle.loads(file.read_bytes())
errors.run_command("job", lambda: execution.run_all(runs, file.parent, len(runs)))
"""


def stub(run: Run, data: Path, fails: str = "") -> Run:
    """The run with the stand-ins above as its commands."""
    python = (sys.executable, "-c")

    def step(one: Step, program: str) -> Step:
        return replace(one, command=(*python, program, str(one.result.parent), str(one.exit)))

    return replace(
        run,
        data=replace(run.data, manifests=data, labels=data),
        train=(*python, TRAIN, str(run.folder), fails),
        decode=tuple(step(one, DECODE) for one in run.decode),
        align=tuple(step(one, ALIGN) for one in run.align),
    )


def stubbed(grid: Grid, out: Path, data: Path, arms=None, seeds=None, fails: str = "") -> list[Run]:
    """The runs of a grid, with stand-ins as commands."""
    return [stub(run, data, fails) for run in runs_of(grid, out, GIVEN, arms, seeds)]


def decoding(run: Run, subset: str, layer: int) -> Step:
    """One decoding of a run."""
    return next(step for step in run.decode if (step.subset, step.exit) == (subset, layer))


def other_decoding(run: Run, subset: str, layer: int, command: tuple[str, ...]) -> Run:
    """The run with another command for one decoding."""
    changed = decoding(run, subset, layer)
    return replace(run, decode=tuple(replace(s, command=command) if s is changed else s for s in run.decode))


def noted(run: Run) -> dict:
    """Contents of run.json in the folder of a run."""
    return json.loads((run.folder / "run.json").read_text())
