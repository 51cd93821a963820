import json

import pytest

from fairseq_skd.demo.table import exits_table, read_summary
from fairseq_skd.errors import UserError

TEACHER = {"exit_layer": 4, "layers": 4, "parameters": 1234567, "wer": 3.456, "cer": 1.2, "real_time_factor": 0.00512}
STUDENT = {"exit_layer": 2, "layers": 4, "parameters": 654321, "wer": 12.0, "cer": 4.0, "real_time_factor": 0.003}


def test_table():
    assert exits_table([TEACHER, STUDENT]).splitlines() == [
        "exit       layers    parameters    WER %    CER %    real-time factor",
        "teacher    4 of 4     1,234,567     3.46     1.20              0.0051",
        "student    2 of 4       654,321    12.00     4.00              0.0030",
    ]


def test_summary_of_infer(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(TEACHER))
    assert read_summary(tmp_path / "summary.json") == TEACHER


@pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
def test_summary_that_is_none(tmp_path, text):
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UserError, match=r"summary\.json .*decode again"):
        read_summary(tmp_path / "summary.json")
