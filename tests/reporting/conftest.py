"""A folder of runs as the commands leave it: a log, both exits decoded, and compared."""

import json
from pathlib import Path

import pytest

from fairseq_skd import align, infer
from tests.decoding.checkpoints import FULL, STUDENT
from tests.decoding.conftest import corpus, hubert

__all__ = ["corpus", "hubert", "runs"]

INNER = {"epoch": 1, "ctc_teacher": "8.5", "ctc_student": "9", "skd": "3", "alpha": "0.3", "blank_teacher": "0.5"}
LINES = [
    "[2026-01-01 00:00:00,000][fairseq.trainer][INFO] - no JSON {here}",
    *(
        f"[2026-01-01 00:00:0{i},000][train_inner][INFO] - {json.dumps({**INNER, 'num_updates': str(10 * i)})}"
        for i in (1, 2, 3)
    ),
    '[2026-01-01 00:00:04,000][valid][INFO] - {"valid_wer": "90.5", "valid_num_updates": "30"}',
    '[2026-01-01 00:00:04,000][valid][INFO] - {"valid_student_wer": "95", "valid_num_updates": "30"}',
    '[2026-01-01 00:00:05,000][train_inner][INFO] - {"loss": "nan", "num_updates": "40"}',
    '[2026-01-01 00:00:05,000][train_inner][INFO] - {"cut": "of',
]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, corpus: Path, hubert: Path) -> Path:
    folder = tmp_path_factory.mktemp("reported") / "runs"
    (folder / "skd").mkdir(parents=True)
    (folder / "skd" / "hydra_train.log").write_text("\n".join(LINES))
    shared = [f"task.data={corpus}", f"common_eval.path={hubert}", "common.cpu=true", "dataset.num_workers=0"]
    for layer in (FULL, STUDENT):
        out = folder / "skd" / f"decode-{layer}"
        infer.main([*shared, f"decoding.layer={layer}", f"common_eval.results_path={out}"])
    out = folder / "skd" / "align"
    align.main([*shared, f"common_eval.results_path={out}", "align.examples=[3,0]"])
    return folder
