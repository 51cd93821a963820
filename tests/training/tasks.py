"""fairseq's two fine-tuning tasks, on a small corpus."""

from pathlib import Path

from fairseq.tasks import setup_task
from fairseq.tasks.audio_finetuning import AudioFinetuningConfig
from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
from omegaconf import OmegaConf

from fairseq_skd.encoders.convolutions import parse_conv_layers
from tests.builders import CONVOLUTIONS

TASKS = ("hubert_pretraining", "audio_finetuning")
LAYERS = parse_conv_layers(CONVOLUTIONS)  # 400 samples, 25 ms, make one frame
HUBERT = {"labels": ["ltr"], "fine_tuning": True, "single_target": True, "pad_audio": True, "random_crop": False}


def make_task(name: str, folder: Path, **changes):
    config = HubertPretrainingConfig() if name == "hubert_pretraining" else AudioFinetuningConfig()
    own = HUBERT if "hubert" in name else {"labels": "ltr"}
    merged = OmegaConf.merge(OmegaConf.structured(config), {"_name": name, "data": str(folder), **own, **changes})
    return setup_task(OmegaConf.create({"task": merged, "common": {"tpu": False, "seed": 1}}).task)


def root(seed: int = 1, **dataset):
    """Build the configuration above ``cfg.model``."""
    return OmegaConf.create({"common": {"seed": seed}, "task": {}, "dataset": {"train_subset": "train", **dataset}})
