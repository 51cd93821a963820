import os
from pathlib import Path

import pytest

from benchmarks.workers import Worker
from fairseq_skd.encoders.convolutions import parse_conv_layers
from fairseq_skd.errors import UserError


@pytest.fixture
def start():
    started = []

    def start_worker(build, *arguments):
        started.append(Worker("the arm", build, *arguments))
        return started[-1]

    yield start_worker
    for worker in started:
        worker.close()


def test_methods_run_in_another_process(start, tmp_path):
    worker = start(Path, tmp_path / "made")
    assert worker.call("exists") is False
    worker.call("mkdir")
    assert worker.call("exists") is True
    with pytest.raises(RuntimeError, match=r"the arm(.|\n)*FileExistsError"):
        worker.call("mkdir")


def test_a_mistake_stays_one_sentence(start):
    with pytest.raises(UserError, match="conv_feature_layers='nonsense'"):
        start(parse_conv_layers, "nonsense").call("ready")


def test_a_killed_process_is_told(start):
    with pytest.raises(UserError, match="the arm ended with exit code 9.*lower --batch"):
        start(os._exit, 9).call("ready")
