from pathlib import Path

import pytest
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.models.hubert.hubert import HubertModel
from fairseq.optim import OPTIMIZER_DATACLASS_REGISTRY
from fairseq.optim.lr_scheduler import LR_SCHEDULER_DATACLASS_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
from omegaconf import OmegaConf

from fairseq_skd.cli import compose
from fairseq_skd.compat import to_container
from fairseq_skd.encoders.convolutions import parse_conv_layers
from tests.builders import letter_dictionary

CONFIG = Path(__file__).parents[2] / "config" / "pretrain"
REGISTRIES = {
    "task": TASK_DATACLASS_REGISTRY,
    "model": MODEL_DATACLASS_REGISTRY,
    "criterion": CRITERION_DATACLASS_REGISTRY,
    "optimizer": OPTIMIZER_DATACLASS_REGISTRY,
    "lr_scheduler": LR_SCHEDULER_DATACLASS_REGISTRY,
}
# The only key that some fairseq builds do not have.
NOT_EVERYWHERE = {"conv_pos_batch_norm"}


@pytest.mark.parametrize("group", REGISTRIES)
def test_every_key_is_listed(group):
    listed = to_container(OmegaConf.load(CONFIG / "hubert_tiny.yaml")[group])
    fields = set(REGISTRIES[group][listed.pop("_name")].__dataclass_fields__)
    assert set(listed) == fields - NOT_EVERYWHERE - {"_name"}


def test_values():
    cfg = compose(CONFIG, "hubert_tiny", ["task.data=/d"])
    assert cfg.lr_scheduler.warmup_updates < cfg.lr_scheduler.total_num_update == cfg.optimization.max_update
    assert not cfg.common.fp16
    assert cfg.model.mask_channel_prob == 0
    assert cfg.model.skip_nomask == (cfg.criterion.pred_nomask_weight == 0)
    layers = parse_conv_layers(cfg.model.conv_feature_layers)
    assert [(kernel, stride) for _, kernel, stride in layers] == [
        (10, 5),
        (3, 2),
        (3, 2),
        (3, 2),
        (3, 2),
        (2, 2),
        (2, 2),
    ]


def test_fairseq_builds_the_model():
    cfg = compose(CONFIG, "hubert_tiny", ["task.data=/d"])
    values = {key: value for key, value in to_container(cfg.model).items() if key != "_name"}
    model = OmegaConf.merge(OmegaConf.structured(MODEL_DATACLASS_REGISTRY["hubert"]()), values)
    task = OmegaConf.merge(OmegaConf.structured(HubertPretrainingConfig()), {"data": ".", "label_rate": 100.0})
    encoder = HubertModel(model, task, [letter_dictionary()]).encoder
    assert len(encoder.layers) == cfg.model.encoder_layers
