"""HuBERT's pretraining loss: ours against fairseq's, through fairseq's model and criterion."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from fairseq.criterions.hubert_criterion import HubertCriterion
from fairseq.data import Dictionary
from fairseq.models.hubert import hubert
from fairseq.models.hubert.hubert import HubertConfig, HubertModel
from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
from omegaconf import OmegaConf
from torch.utils._python_dispatch import TorchDispatchMode

from fairseq_skd import fairseq_fixes
from fairseq_skd.fairseq_fixes import equal_rows, nce_logits, unit_rows
from tests.builders import architecture

OURS = HubertModel.compute_nce
FAIRSEQ = OURS.__wrapped__
INFINITY = float("inf")


def clusters(number):
    dictionary = Dictionary()  # four special symbols come first, as in fairseq's task
    for cluster in range(number):
        dictionary.add_symbol(str(cluster))
    return dictionary


def hubert_model(sets=(9,), **changes):
    """Build a HuBERT for pretraining on label sets of the given sizes, one label per 20 ms."""
    torch.manual_seed(1)
    values = architecture(final_dim=16, label_rate=50.0, dropout=0.0, attention_dropout=0.0)
    cfg = OmegaConf.merge(OmegaConf.structured(HubertConfig()), {**values, **changes})
    task = OmegaConf.merge(OmegaConf.structured(HubertPretrainingConfig()), {"data": ".", "label_rate": 50.0})
    return HubertModel(cfg, task, [clusters(number) for number in sets])


def padded_batch(sets, dtype=torch.float32):
    """Make three utterances of 1.2, 0.9 and 0.6 s with random labels."""
    generator = torch.Generator().manual_seed(2)
    samples = torch.tensor([19200, 14400, 9600])
    padding = torch.arange(19200) >= samples.unsqueeze(1)
    source = torch.randn(3, 19200, generator=generator, dtype=dtype).masked_fill(padding, 0)
    targets = [torch.randint(4, number + 4, (3, 60), generator=generator) for number in sets]
    return {
        "id": torch.arange(3),
        "net_input": {"source": source, "padding_mask": padding},
        "target_list": targets,
    }


@pytest.fixture
def masks(monkeypatch):
    """Draw the same masks in each call; fairseq draws different ones."""

    def drawn(shape, *_, **__):
        return torch.rand(shape, generator=torch.Generator().manual_seed(3)).lt(0.5).numpy()

    monkeypatch.setattr(hubert, "compute_mask_indices", drawn)


def step(function, model, batch, monkeypatch, autocast=False):
    """Return loss, gradients by name and fairseq's log with the given ``compute_nce``."""
    monkeypatch.setattr(HubertModel, "compute_nce", function)
    model.zero_grad()
    criterion = HubertCriterion(None, 0.0 if model.skip_masked else 1.0, 0.0 if model.skip_nomask else 1.0, [10.0])
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss, _, logged = criterion(model, batch)
    loss.backward()
    return loss.detach(), {k: p.grad.double() for k, p in model.named_parameters() if p.grad is not None}, logged


def difference(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


def flat(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients.values()])


def compare(model, batch, monkeypatch):
    """Return relative differences of losses and of gradients; logged counts must be equal."""
    loss, gradients, logged = step(OURS, model, batch, monkeypatch)
    their_loss, their_gradients, their_logged = step(FAIRSEQ, model, batch, monkeypatch)
    assert gradients.keys() == their_gradients.keys()
    assert logged.keys() == their_logged.keys()
    for key, value in logged.items():
        assert value == (pytest.approx(their_logged[key], rel=1e-6) if isinstance(value, float) else their_logged[key])
    return difference(loss, their_loss), difference(flat(gradients), flat(their_gradients))


CASES = {
    "one label set": ((9,), {}),
    "several": ((9, 30, 3), {}),
    "several, one projection each": ((9, 30, 3), {"untie_final_proj": True}),
    "several of one size": ((9, 9), {"untie_final_proj": True}),
    "masked frames only": ((9, 30), {"skip_nomask": True}),
    "unmasked frames only": ((9, 30), {"skip_masked": True}),
    "full-width projection, another temperature": ((30,), {"final_dim": 0, "logit_temp": 0.02}),
}


@pytest.mark.faults  # section 8 of the issue
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("masks")
@pytest.mark.slow
def test_loss_gradient_and_counts_equal_fairseq(case, dtype, monkeypatch):
    sets, changes = CASES[case]
    loss, gradient = compare(hubert_model(sets, **changes).to(dtype), padded_batch(sets, dtype), monkeypatch)
    assert loss < 1e-6
    assert gradient < 1e-6


@pytest.mark.usefixtures("masks")
def test_target_glu_uses_fairseqs_function(monkeypatch):
    assert compare(hubert_model((9,), target_glu=True), padded_batch((9,)), monkeypatch) == (0, 0)


def test_no_masked_frame_and_one_masked_frame(monkeypatch):
    for masked in (0, 1):
        monkeypatch.setattr(
            hubert, "compute_mask_indices", lambda shape, *_, n=masked, **__: (torch.arange(shape[0] * shape[1]) < n)
            .view(shape).numpy()
        )  # fmt: skip
        assert max(compare(hubert_model(), padded_batch((9,)), monkeypatch)) < 1e-6


@pytest.mark.usefixtures("masks")
def test_equal_labels_zero_labels_and_a_zero_projection(monkeypatch):
    model, batch = hubert_model((9, 5)), padded_batch((9, 5))
    with torch.no_grad():
        model.label_embs_concat[5] = model.label_embs_concat[6]
        model.label_embs_concat[7] = 0
        model.label_embs_concat[-1] = 0
    assert max(compare(model, batch, monkeypatch)) < 1e-6
    with torch.no_grad():
        model.final_proj.weight.zero_()
        model.final_proj.bias.zero_()
    assert max(compare(model, batch, monkeypatch)) < 1e-6  # all cosines are 0


@pytest.mark.usefixtures("masks")
def test_parameters_in_half_precision(monkeypatch):
    model, batch = hubert_model((9, 30)).bfloat16(), padded_batch((9, 30), torch.bfloat16)
    loss, gradients, _ = step(OURS, model, batch, monkeypatch)
    their_loss, their_gradients, _ = step(FAIRSEQ, model, batch, monkeypatch)
    assert difference(loss, their_loss) < 1e-4
    assert difference(flat(gradients), flat(their_gradients)) < 4e-3  # a unit in the last place


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor that is created."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


def alone(function, frames, labels, width, dtype=torch.float32, autocast=False):
    """Return logits and gradients of ``compute_nce``, called as in fairseq's forward."""
    torch.manual_seed(5)
    embeddings = torch.rand(labels, width, dtype=dtype, requires_grad=True)
    model = SimpleNamespace(label_embs_concat=embeddings, num_classes=[labels], logit_temp=0.1)
    (own,) = model.label_embs_concat.split(model.num_classes)
    x = torch.randn(frames, width, dtype=dtype, requires_grad=True)
    positives = own.index_select(0, torch.arange(frames) % labels)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = function(model, x, positives, own.unsqueeze(1).expand(-1, frames, -1))
    F.cross_entropy(logits.float(), torch.zeros(frames, dtype=torch.long), reduction="sum").backward()
    return logits.detach(), x.grad, embeddings.grad


@pytest.mark.parametrize(
    ("dtype", "autocast", "tolerance"), [(torch.float16, False, 1e-3), (torch.float32, True, 1e-6)]
)
def test_the_product_is_in_float32(dtype, autocast, tolerance):
    """``common.fp16`` gives operands in half precision, ``common.amp`` an autocast product."""
    found = [alone(function, 40, 7, 16, dtype, autocast) for function in (OURS, FAIRSEQ)]
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype == dtype
        assert torch.equal(ours.isinf(), theirs.isinf())
        assert difference(*(tensor.double().nan_to_num(neginf=0) for tensor in (ours, theirs))) < tolerance


@pytest.mark.faults
def test_no_tensor_has_labels_x_frames_x_width_numbers():
    """fairseq has such tensors in forward and backward, which cost memory and time."""
    frames, labels, width = 300, 50, 64
    sizes = []
    for function in (OURS, FAIRSEQ):
        with Largest() as seen:
            alone(function, frames, labels, width)
        sizes.append(seen.bytes)
    ours, theirs = sizes
    assert ours <= 8 * frames * max(width, labels + 1)
    assert theirs >= 4 * labels * frames * width


def test_logits_by_hand():
    frames = torch.tensor([[2.0, 0.0], [3.0, 4.0]])
    labels = torch.tensor([[5.0, 0.0], [0.0, 1.0], [5.0, 0.0]])
    logits = nce_logits(frames, labels[:2], labels, temperature=0.5)
    expected = torch.tensor([[2.0, -INFINITY, 0.0, -INFINITY], [1.6, 1.2, -INFINITY, 1.2]])
    torch.testing.assert_close(logits, expected)


def test_cosines_and_their_gradients_in_double_precision():
    torch.manual_seed(4)
    frames, labels = torch.randn(5, 3, dtype=torch.double), torch.randn(4, 3, dtype=torch.double)
    frames[0], labels[1] = 0, 0
    frames[2] *= 1e-9 / frames[2].norm()  # shorter than EPSILON
    weights = torch.randn(5, 4, dtype=torch.double)
    found = []
    for cosines in (
        lambda x, y: unit_rows(x) @ unit_rows(y).T,
        lambda x, y: torch.cosine_similarity(x[:, None], y[None], dim=-1),
    ):
        x, y = frames.clone().requires_grad_(), labels.clone().requires_grad_()
        values = cosines(x, y)
        (weights * values).sum().backward()
        found.append((values.detach(), x.grad, y.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_equal_rows():
    first = torch.tensor([[1.0, 2.0], [1.0, 3.0], [0.0, 1.0], [float("nan"), 1.0]])
    second = torch.tensor([[1.0, 3.0], [-0.0, 1.0], [float("nan"), 1.0]])
    assert equal_rows(first, second).tolist() == [[False] * 3, [True, False, False], [False, True, False], [False] * 3]
    assert equal_rows(first[:0], second).shape == (0, 3)


def test_installed_once():
    assert FAIRSEQ.__module__ == OURS.__module__ == "fairseq.models.hubert.hubert"
    fairseq_fixes.speed_up_hubert_pretraining()
    assert HubertModel.compute_nce is OURS
    assert not hasattr(FAIRSEQ, "__wrapped__")
