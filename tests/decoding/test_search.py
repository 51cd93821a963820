"""The search loop around a model that says what its audio tells it to."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fairseq_skd.decoding.searches import recognise, weigh_blank
from fairseq_skd.errors import UserError
from fairseq_skd.search.greedy import greedy

SYMBOLS = 5


class Parrot:
    """Ten samples a frame; the symbol of a frame is its first sample."""

    def __call__(self, source: Tensor, padding_mask: Tensor | None) -> dict[str, Any]:
        frames = source[:, ::10].round().long()  # (B, T)
        logits = torch.nn.functional.one_hot(frames, SYMBOLS).float().transpose(0, 1)  # (T, B, V)
        real = (~padding_mask[:, ::10]) if padding_mask is not None else torch.ones_like(frames, dtype=torch.bool)
        return {"encoder_out": logits, "frame_lengths": real.sum(dim=1)}

    def get_logits(self, net_output: dict[str, Any]) -> Tensor:
        return net_output["encoder_out"]


def batch(ids: list[int], sequences: list[list[int]]) -> dict[str, Any]:
    frames = max(map(len, sequences))
    source = torch.full((len(ids), frames), 4.0)  # padding speaks too: it must not be heard
    padding = torch.ones(len(ids), frames, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        source[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.float)
        padding[row, : len(sequence)] = False
    repeat = {"source": source.repeat_interleave(10, dim=1), "padding_mask": padding.repeat_interleave(10, dim=1)}
    return {"id": torch.tensor(ids), "net_input": repeat}


def run(batches: list[dict[str, Any]], utterances: int, model: Any = None) -> Any:
    return recognise(
        model or Parrot(), batches, utterances, torch.device("cpu"), torch.float32, lambda i: f"utterance {i}"
    )


def test_units_come_back_in_manifest_order() -> None:
    found = run([batch([2, 0], [[1, 1, 0, 1, 2, 2], [0, 3, 3]]), batch([1], [[0, 0]])], 3)
    assert list(found.hypotheses.items()) == [(0, ([3], None)), (1, ([], None)), (2, ([1, 1, 2], None))]
    assert found.samples == 10 * (6 + 3 + 2)
    assert found.seconds > 0


def test_no_padding_mask() -> None:
    sample = batch([0], [[3, 1]])
    sample["net_input"]["padding_mask"] = None
    found = run([sample], 1)
    assert (found.hypotheses, found.samples) == ({0: ([3, 1], None)}, 20)


def test_output_that_is_not_finite_is_named() -> None:
    class Broken(Parrot):
        def __call__(self, source: Tensor, padding_mask: Tensor | None) -> dict[str, Any]:
            net = super().__call__(source, padding_mask)
            net["encoder_out"][0, 1, 2] = float("nan")
            return net

    with pytest.raises(UserError, match="output is not finite for utterance 7"):
        run([batch([3, 7], [[1], [1]])], 8, Broken())


def test_memory_that_does_not_suffice() -> None:
    class Large(Parrot):
        def __call__(self, source: Tensor, padding_mask: Tensor | None) -> dict[str, Any]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match=r"lower dataset\.max_tokens"):
        run([batch([0], [[1]])], 1, Large())


def test_nothing_is_tracked_for_gradients() -> None:
    class Checked(Parrot):
        def __call__(self, source: Tensor, padding_mask: Tensor | None) -> dict[str, Any]:
            assert torch.is_inference_mode_enabled()
            return super().__call__(source, padding_mask)

    assert run([batch([0], [[1]])], 1, Checked()).hypotheses == {0: ([1], None)}


def test_the_weight_of_the_blank() -> None:
    logits = torch.tensor([[[2.0, 1.5, 0.0]], [[3.0, 0.0, 0.5]], [[0.0, 0.0, 0.1]]])  # (T, B, V)
    length = torch.tensor([3])
    said = {weight: weigh_blank(greedy, weight, 0)(logits, length)[0].units for weight in (0.0, -1.0, -3.0, 5.0)}
    assert said == {0.0: [2], -1.0: [1, 2], -3.0: [1, 2], 5.0: []}
    assert weigh_blank(greedy, 0.0, 0) is greedy
    assert logits[0, 0, 0] == 2
