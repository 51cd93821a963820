"""The optimiser's numbers of a checkpoint are not read where only weights are needed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gauges import PeakMemory
from fairseq_skd.encoders.weight_files import load_weights_only
from fairseq_skd.errors import UserError

LEGACY = pytest.mark.parametrize("legacy", [False, True])
UNREAD = ["last_optimizer_state"]


def save(path: Path, legacy: bool, **state: Any) -> Path:
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    return path


def moments(*numbers: torch.Tensor) -> dict[str, Any]:
    return {"state": {index: {"exp_avg": one} for index, one in enumerate(numbers)}, "param_groups": [{"lr": 0.1}]}


@LEGACY
def test_the_other_parts_are_those_of_the_whole_file(tmp_path: Path, legacy: bool) -> None:
    weights = {"a": torch.randn(50, 3), "b": torch.randn(7), "none": torch.empty(0)}
    extra = {"list": [torch.arange(5)], "best": 1.5}
    path = save(
        tmp_path / "c.pt", legacy, last_optimizer_state=moments(torch.randn(9), torch.randn(8)), model=weights, x=extra
    )
    whole, part = load_weights_only(path), load_weights_only(path, UNREAD)
    assert "last_optimizer_state" in whole
    assert part.keys() == {"model", "x"} and part["x"]["best"] == 1.5
    assert torch.equal(part["x"]["list"][0], torch.arange(5))
    for name, tensor in weights.items():
        assert torch.equal(part["model"][name], tensor) and torch.equal(whole["model"][name], tensor)
    assert load_weights_only(path, ["absent"]).keys() == whole.keys()


@LEGACY
def test_numbers_that_the_optimiser_shares_with_the_weights_are_read(tmp_path: Path, legacy: bool) -> None:
    shared, hidden = torch.randn(60), torch.randn(40)
    path = save(
        tmp_path / "c.pt",
        legacy,
        last_optimizer_state=moments(shared[10:50], hidden, torch.randn(30)),
        model={"a": shared[:20]},
        other=[({"deep": hidden[3:]},)],
    )
    part = load_weights_only(path, UNREAD)
    assert torch.equal(part["model"]["a"], shared[:20])
    assert torch.equal(part["other"][0][0]["deep"], hidden[3:])


def test_damage_is_told_in_the_weights_and_not_in_what_is_left_out(tmp_path: Path) -> None:
    weights, average = torch.full((400,), 3.0), torch.full((400,), 5.0)
    content = save(tmp_path / "c.pt", False, model={"a": weights}, last_optimizer_state=moments(average)).read_bytes()
    for numbers, told in ((weights, True), (average, False)):
        at = content.index(numbers.numpy().tobytes()) + 100
        damaged = tmp_path / "damaged.pt"
        damaged.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
        with pytest.raises(UserError, match="it is truncated or not a PyTorch file"):
            load_weights_only(damaged)
        if told:
            with pytest.raises(UserError, match="it is truncated or not a PyTorch file"):
                load_weights_only(damaged, UNREAD)
        else:
            assert torch.equal(load_weights_only(damaged, UNREAD)["model"]["a"], weights)


@LEGACY
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc/self, which needs Linux")
def test_what_is_left_out_takes_no_memory(tmp_path: Path, legacy: bool) -> None:
    path = save(
        tmp_path / "c.pt", legacy, model={"a": torch.ones(1 << 20)}, last_optimizer_state=moments(torch.ones(1 << 24))
    )
    peak = PeakMemory(torch.device("cpu"))
    load_weights_only(path, UNREAD)
    assert peak.above_start() < 35e6  # 4 MB of weights, 8 MB of pickle; 67 MB are left out
    load_weights_only(path)
    assert peak.above_start() > 60e6
