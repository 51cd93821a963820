"""The grid that the tests run, and what a command line gives it."""

from pathlib import Path

GRID = """
corpus: tiny
config: hubert_mini
seeds: [1, 2]
subsets: [valid, test]
common: {optimization.max_update: 30}
decode: {dataset.max_tokens: 100000}
tries: {optimization.max_epoch: 1}
arms:
  ctc: {exits: [4], set: {"model.student_layers": "[]"}}
  skd: {exits: [4, 2], set: {"model.student_layers": "[2]"}, tries: {criterion.kd_weight: [0.1, 1.0]}}
  kd: {exits: [2], needs: ctc, set: {"criterion.teacher_path": "{teacher}"}}
claims:
  - {claim: the student wins, better: skd 2, worse: kd 2}
"""
GIVEN = {"task.data": Path("/data"), "model.w2v_path": Path("/w2v.pt")}
