"""Changes of the logits before a search."""

import torch

from fairseq_skd.decoding.searches import weigh_blank
from fairseq_skd.search.greedy import greedy


def test_the_weight_of_the_blank() -> None:
    logits = torch.tensor([[[2.0, 1.5, 0.0]], [[3.0, 0.0, 0.5]], [[0.0, 0.0, 0.1]]])  # (T, B, V)
    length = torch.tensor([3])
    said = {weight: weigh_blank(greedy, weight, 0)(logits, length)[0].units for weight in (0.0, -1.0, -3.0, 5.0)}
    assert said == {0.0: [2], -1.0: [1, 2], -3.0: [1, 2], 5.0: []}
    assert weigh_blank(greedy, 0.0, 0) is greedy
    assert logits[0, 0, 0] == 2
