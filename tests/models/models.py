"""Small ``skd_ctc`` models: built to be trained, and rebuilt as from their checkpoint."""

import torch

from fairseq_skd.compat import to_container
from fairseq_skd.encoders.pretrained import PretrainedEncoder
from fairseq_skd.models import SkdCtc
from fairseq_skd.models.trained import TrainedModel
from tests.builders import CtcTask, model_config

LARGE = {"layer_norm_first": True, "extractor_mode": "layer_norm"}


def build(path, **changes) -> SkdCtc:
    """Build a model from a pretrained checkpoint, by default with one student of 2 layers."""
    torch.manual_seed(1)
    return SkdCtc.build_model(model_config(path, **changes), CtcTask())


def rebuild(model: SkdCtc, **changes) -> SkdCtc:
    """Rebuild a model as from its fine-tuned checkpoint: without the pretrained file."""
    config = model_config("/gone.pt", w2v_args=model.cfg.w2v_args, **changes)
    fresh = SkdCtc.build_model(config, CtcTask())
    fresh.load_state_dict({key: value.clone() for key, value in model.state_dict().items()}, strict=True)
    return fresh.eval()


def trained(model: SkdCtc) -> TrainedModel:
    """What opening a model's checkpoint returns, without a dictionary."""
    config = to_container(model.cfg)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    encoder = PretrainedEncoder.from_w2v_args(config["w2v_args"])
    return TrainedModel("checkpoint.pt", {"model": config}, weights, 32, None, encoder)
