"""The hooks in fairseq_cli.train, by themselves and in the real program."""

import sys
from types import SimpleNamespace

import pytest
from fairseq import checkpoint_utils
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.initialize import add_defaults
from omegaconf import OmegaConf

from fairseq_skd.cli import compose
from fairseq_skd.errors import UserError
from fairseq_skd.training import lock
from fairseq_skd.training.door import check_at_the_door
from tests.builders import write_pretrained
from tests.end_to_end.training import REPOSITORY, SMALL, corpus, train

FINETUNE = REPOSITORY / "config" / "finetune"
GIVEN = ["common.user_dir=/u", "task.data=/d", "model.w2v_path=/w", "common.cpu=true"]


@pytest.mark.slow
def test_hooks_are_set_once_and_do_not_touch_other_models(monkeypatch):
    module = SimpleNamespace(add_defaults=add_defaults, train=lambda *_: "trained", should_stop_early=lambda *_: False)
    monkeypatch.setitem(sys.modules, "fairseq_cli.train", module)
    check_at_the_door()
    hooked = module.add_defaults
    check_at_the_door()
    assert module.add_defaults is hooked is not add_defaults
    ours = OmegaConf.merge(
        OmegaConf.structured(FairseqConfig()), compose(FINETUNE, "hubert_mini", [*GIVEN, "common.seed=-1"])
    )
    with pytest.raises(UserError, match="common.seed"):
        hooked(ours)
    other = OmegaConf.create({"model": {"_name": "hubert_ctc"}, "common": {"seed": -1}})
    hooked(other)


@pytest.mark.faults
def test_a_training_forgets_the_best_result_of_an_earlier_one(monkeypatch):
    """With --multirun, the second training of a process silently wrote no checkpoint_best.pt or
    stopped early.
    """
    module = SimpleNamespace(add_defaults=lambda _: None, train=None, should_stop_early=lambda *_: False)
    module.should_stop_early.best, module.should_stop_early.num_runs = 7.5, 3
    checkpoint_utils.save_checkpoint.best = 7.5
    monkeypatch.setitem(sys.modules, "fairseq_cli.train", module)
    check_at_the_door()
    cfg = OmegaConf.create({"model": {"_name": "skd_ctc", "zzz": 1}, "criterion": None})
    with pytest.raises(UserError, match="zzz is unknown"):
        module.add_defaults(cfg)
    assert not hasattr(checkpoint_utils.save_checkpoint, "best")
    assert vars(module.should_stop_early) == {}


@pytest.mark.faults
@pytest.mark.slow
def test_only_a_training_that_saves_locks_its_folder(tmp_path, monkeypatch):
    """X5: rank 0 locks the folder; other ranks, and a training that saves nothing, do not."""
    module = SimpleNamespace(add_defaults=add_defaults, train=lambda *_: "trained", should_stop_early=lambda *_: False)
    monkeypatch.setitem(sys.modules, "fairseq_cli.train", module)
    held = []
    monkeypatch.setattr(lock, "hold", held.append)
    check_at_the_door()
    for changes in ({}, {"distributed_training": {"distributed_rank": 1}}, {"checkpoint": {"no_save": True}}):
        given = compose(FINETUNE, "hubert_mini", [*GIVEN, f"checkpoint.save_dir={tmp_path}"])
        module.add_defaults(OmegaConf.merge(OmegaConf.structured(FairseqConfig()), given, changes))
    assert held == [str(tmp_path)]


@pytest.mark.faults
def test_a_complete_run_is_not_trained_further(monkeypatch, caplog):
    """Started again, fairseq trained update 21 of 20 and overwrote the last checkpoint."""
    module = SimpleNamespace(add_defaults=add_defaults, train=lambda *_: "trained", should_stop_early=lambda *_: False)
    monkeypatch.setitem(sys.modules, "fairseq_cli.train", module)
    check_at_the_door()
    for last, updates, result in ((20, 19, "trained"), (20, 20, ([None], True)), (0, 20, "trained")):
        cfg = OmegaConf.create({"model": {"_name": "skd_ctc"}, "optimization": {"max_update": last}})
        assert module.train(cfg, SimpleNamespace(get_num_updates=lambda updates=updates: updates), None, None) == result
    assert caplog.text.count("nothing to train: None already has 20 updates and optimization.max_update=20") == 1
    cfg = OmegaConf.create({"model": {"_name": "hubert_ctc"}, "optimization": {"max_update": 20}})
    assert module.train(cfg, SimpleNamespace(get_num_updates=lambda: 20), None, None) == "trained"


@pytest.mark.faults
@pytest.mark.slow
def test_fairseq_exits_with_an_error_before_it_does_anything(tmp_path):
    """X16: in the real program. suppress_crashes would suppress its own refusal too."""
    data, hubert = corpus(tmp_path / "data"), write_pretrained(tmp_path / "hubert.pt")
    given = [*SMALL, f"task.data={data}", f"model.w2v_path={hubert}", "common.suppress_crashes=true"]
    result = train(tmp_path / "run", [*given, f"checkpoint.save_dir={tmp_path / 'saved'}"])
    assert result.returncode != 0
    last = result.stdout.rstrip().splitlines()[-1]
    assert last.startswith("fairseq-hydra-train: common.suppress_crashes=true is refused")
    assert not (tmp_path / "saved").exists()
