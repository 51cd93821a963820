"""A base-size encoder with random weights, its recipe, and batches of noise. Needs no file."""

import argparse
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fairseq import tasks
from fairseq.data import Dictionary
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.initialize import add_defaults
from omegaconf import DictConfig, OmegaConf

import fairseq_skd  # noqa: F401  (registers skd_ctc)
from benchmarks.multiply_adds import Shape
from fairseq_skd.cli import compose
from fairseq_skd.compat import to_container
from fairseq_skd.encoders.convolutions import parse_conv_layers
from fairseq_skd.encoders.pretrained import PretrainedEncoder
from fairseq_skd.encoders.trunk import frame_lengths
from fairseq_skd.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
LAYERS, WIDTH, INNER, HEADS = 12, 768, 3072, 12
SAMPLE_RATE = 16000
LETTERS_PER_SECOND = 14  # read English
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CONVOLUTIONS = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
_ENCODER = {
    "extractor_mode": "default",
    "encoder_layers": LAYERS,
    "encoder_embed_dim": WIDTH,
    "encoder_ffn_embed_dim": INNER,
    "encoder_attention_heads": HEADS,
    "conv_feature_layers": _CONVOLUTIONS,
}


@dataclass(frozen=True)
class Setting:
    """Options that both arms share.

    Attributes:
        batch: utterances per batch.
        seconds: length of the longest utterance.
        threads: threads of torch.
        device: ``cpu`` or ``cuda``.
        dtype: a key of :data:`DTYPES`.
        student: layers of the student.
    """

    batch: int
    seconds: float
    threads: int
    device: str
    dtype: str
    student: int

    def check(self) -> None:
        """Check that this can be measured.

        Raises:
            UserError: an option is out of range, or device or precision is not available.
        """
        if not 0.5 <= self.seconds <= 60:
            raise UserError(f"--seconds {self.seconds} must be between 0.5 and 60")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: torch sees no GPU, give --device cpu")
        if self.device == "cpu" and self.dtype == "float16":
            raise UserError("--dtype float16 needs a GPU: give --device cuda")
        if not 1 <= self.student < LAYERS:
            raise UserError(
                f"--student {self.student} must be between 1 and {LAYERS - 1}: the full model has {LAYERS} layers"
            )

    def begin(self) -> torch.device:
        """Set threads and log level of this process, and return the device."""
        torch.set_num_threads(self.threads)
        logging.disable(logging.INFO)
        warnings.filterwarnings("ignore", category=FutureWarning)
        return torch.device(self.device)

    def describe(self) -> str:
        """Write the caption of the table."""
        machine = f"{self.threads} threads" if self.device == "cpu" else torch.cuda.get_device_name()
        return (
            f"Encoder of {LAYERS} x {WIDTH}, {self.batch} utterances of up to {self.seconds:g} s, "
            f"{self.device} {self.dtype}, {machine}"
        )


def add_setting(parser: argparse.ArgumentParser, batch: int, seconds: float, dtypes: Sequence[str]) -> None:
    """Add the options of a :class:`Setting` to a parser."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--batch", type=count, default=batch, help="utterances per batch (%(default)s)")
    parser.add_argument("--seconds", type=float, default=seconds, help="seconds of the longest utterance (%(default)s)")
    parser.add_argument("--student", type=int, default=6, metavar="LAYERS", help="layers of the student (%(default)s)")
    parser.add_argument("--threads", type=count, default=threads, help="threads per process (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="device (%(default)s)")
    parser.add_argument("--dtype", choices=dtypes, default="float32", help="precision (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all measurements to FILE")


def setting(args: argparse.Namespace) -> Setting:
    """Build and check a :class:`Setting` from parsed options."""
    made = Setting(args.batch, args.seconds, args.threads, args.device, args.dtype, args.student)
    made.check()
    return made


def count(text: str) -> int:
    """Parse a whole number of 1 or more.

    Raises:
        argparse.ArgumentTypeError: the number is below 1.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of 1 or more")
    return value


def shape() -> Shape:
    """Return the architecture, to count multiply-adds."""
    return Shape(parse_conv_layers(_CONVOLUTIONS), LAYERS, WIDTH, INNER, symbols=len(letters()))


def letters() -> Dictionary:
    """Load the letter dictionary of ``manifests/``: 32 symbols with the blank."""
    return Dictionary.load(str(ROOT / "manifests" / "dict.ltr.txt"))


def recipe(chosen: Setting, students: Sequence[int]) -> DictConfig:
    """Read ``config/finetune/hubert_base_100h.yaml`` as fairseq does, for one device.

    The frozen phase is left out, because most steps of a run train every layer.
    """
    overrides = [
        "common.user_dir=null",
        f"common.cpu={str(chosen.device == 'cpu').lower()}",
        f"common.fp16={str(chosen.dtype == 'float16').lower()}",
        f"common.bf16={str(chosen.dtype == 'bfloat16').lower()}",
        "common.log_format=none",
        "distributed_training.distributed_world_size=1",
        "task.data=.",
        "model.w2v_path=none",
        f"model.student_layers=[{','.join(map(str, students))}]",
        "model.freeze_finetune_updates=0",
    ]
    cfg = OmegaConf.merge(
        OmegaConf.structured(FairseqConfig()), compose(ROOT / "config" / "finetune", "hubert_base_100h", overrides)
    )
    add_defaults(cfg)
    values = to_container(cfg)
    values["model"]["w2v_args"] = encoder("hubert").to_w2v_args()
    return OmegaConf.create(values)


def encoder(kind: str) -> PretrainedEncoder:
    """Describe a base-size HuBERT or WavLM."""
    return PretrainedEncoder(kind, _ENCODER, normalize=False)


def build_task(cfg: DictConfig) -> tasks.FairseqTask:
    """Build the recipe's fairseq task, with the letter dictionary."""
    task = tasks.setup_task(cfg.task)
    task.state.merge_state_dict({"target_dictionary": letters()})
    return task


def noise_batch(chosen: Setting, seed: int = 1) -> dict[str, Any]:
    """Build a padded batch as fairseq's task collates it.

    The shortest utterance has nine tenths of the length of the longest.
    """
    generator = torch.Generator().manual_seed(seed)
    longest = int(chosen.seconds * SAMPLE_RATE)
    samples = torch.linspace(1.0, 0.9, chosen.batch).mul(longest).long()
    padding = torch.arange(longest) >= samples.unsqueeze(1)  # (B, samples)
    source = torch.randn(chosen.batch, longest, generator=generator).mul(0.1).masked_fill(padding, 0)
    frames = frame_lengths(samples, parse_conv_layers(_CONVOLUTIONS))
    lengths = torch.minimum(samples * LETTERS_PER_SECOND // SAMPLE_RATE, frames // 2).clamp(min=1)
    dictionary = letters()
    target = torch.randint(
        dictionary.nspecial, len(dictionary), (chosen.batch, int(lengths.max())), generator=generator
    )
    target[torch.arange(target.size(1)) >= lengths.unsqueeze(1)] = dictionary.pad()
    return {
        "id": torch.arange(chosen.batch),
        "net_input": {"source": source, "padding_mask": padding},
        "target": target,
        "target_lengths": lengths,
        "ntokens": int(lengths.sum()),
    }
