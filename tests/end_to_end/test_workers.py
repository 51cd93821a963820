"""Data-parallel training: two gloo processes against one with two batches per update."""

import pytest
import torch

from tests.baselines import BASELINES
from tests.builders import write_pretrained
from tests.decoding.checkpoints import write_fine_tuned
from tests.end_to_end.training import SMALL, corpus, logged, parameters, train
from tests.end_to_end.workers import train_on_two

DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", "dropout_input", "final_dropout", "layerdrop")
QUIET = (*SMALL, "model.apply_mask=false", *(f"model.{name}=0" for name in DROPOUTS), "optimization.max_update=4")
QUIET = (*QUIET, "common.log_interval=1", "dataset.batch_size=1")


@pytest.mark.parametrize("baseline", [None, "softmax_kl"])
@pytest.mark.slow
def test_two_workers_equal_two_accumulated_batches(tmp_path, baseline):
    data = corpus(tmp_path / "data")
    settings = [*QUIET, f"task.data={data}", f"model.w2v_path={write_pretrained(tmp_path / 'hubert.pt')}"]
    if baseline:
        teacher = write_fine_tuned(tmp_path / "teacher.pt")
        settings += [*BASELINES[baseline], f"criterion.teacher_path={teacher}", "model.keep_layers=2"]
    one = train(tmp_path / "one", [*settings, "optimization.update_freq=[2]"])
    assert one.returncode == 0, one.stdout[-3000:]

    outputs = train_on_two(tmp_path / "two", settings)
    for kind in ("train_inner", "valid"):
        alone, together = logged(one.stdout, kind), logged(outputs[0], kind)
        assert len(alone) == len(together) > 0
        for expected, found in zip(alone, together, strict=True):
            shared = [name for name in expected if name.rsplit("valid_")[-1] in METRICS]
            assert len(shared) >= (5 if baseline else 8)
            for name in shared:
                assert found[name] == pytest.approx(expected[name], rel=1e-3), name  # as rounded as the log is
    expected, found = (parameters(folder / "checkpoint_last.pt") for folder in (tmp_path / "one", tmp_path / "two"))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5, msg=name)


METRICS = {
    *("loss", "ctc_teacher", "ctc_student", "skd", "alpha", "blank_teacher", "blank_student", "infeasible"),
    *("wer", "uer", "student_wer", "student_uer", "ctc", "kd"),
}
