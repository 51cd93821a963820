"""The grid that the tests run, what a command line gives it, and commands that train nothing."""

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

# What stands for training, decoding and the analysis. Training fails the first time where it is told to, and then
# goes on where it was.
TRAIN = """
import json, pathlib, sys
folder, fails = pathlib.Path(sys.argv[1]), sys.argv[2] == "fails"
tries = folder / "tries"
n = int(tries.read_text()) + 1 if tries.exists() else 1
tries.write_text(str(n))
(folder / "checkpoints").mkdir(exist_ok=True)
(folder / "checkpoints" / "checkpoint_last.pt").touch()
if fails and n == 1:
    sys.exit("cut off")
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
# A job of pickled runs, all of them at a time; as run_grid it ends what it began when it is terminated.
JOB = """
import pathlib, pickle, sys
from experiments import execution
from fairseq_skd import errors
file = pathlib.Path(sys.argv[1])
runs = pickle.loads(file.read_bytes())
errors.run_command("job", lambda: execution.run_all(runs, file.parent, len(runs)))
"""


def stub(run: Run, data: Path, fails: str = "") -> Run:
    """The run with its commands replaced by those above."""
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
    """The runs of a grid, with stubs."""
    return [stub(run, data, fails) for run in runs_of(grid, out, GIVEN, arms, seeds)]


def decoding(run: Run, subset: str, layer: int) -> Step:
    """One of its decodings."""
    return next(step for step in run.decode if (step.subset, step.exit) == (subset, layer))


def other_decoding(run: Run, subset: str, layer: int, command: tuple[str, ...]) -> Run:
    """The run with one of its decodings done by another command."""
    changed = decoding(run, subset, layer)
    return replace(run, decode=tuple(replace(s, command=command) if s is changed else s for s in run.decode))


def noted(run: Run) -> dict:
    """What its folder remembers."""
    return json.loads((run.folder / "run.json").read_text())
