"""The command, in its quickest form."""

import json
from pathlib import Path

from fairseq_skd import align
from tests.decoding.checkpoints import STUDENT

QUICK = ("dataset.num_workers=0", "align.resamples=200", "align.examples=[]")
BOTH = ("w2v_encoder", f"student_heads.{STUDENT}")


def run(corpus, *overrides, out="out"):
    align.main([*QUICK, f"task.data={corpus}", f"common_eval.results_path={out}", *overrides])
    return json.loads(Path(out, "align.json").read_text())
