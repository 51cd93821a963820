"""Posteriors of every exit of a fine-tuned checkpoint over one utterance."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import torch

from fairseq_skd.decoding import checkpoint, results, subset
from fairseq_skd.decoding.settings import TaskSettings
from fairseq_skd.encoders.convolutions import parse_conv_layers
from fairseq_skd.errors import UserError


@dataclass(frozen=True)
class ExitPosteriors:
    """What a figure of one utterance needs.

    Attributes:
        waveform: (samples,) in [-1, 1].
        sample_rate: in Hz.
        text: the reference.
        posteriors: layer count of an exit -> (T, V), deepest first; the blank is at index 0.
        symbols: the V symbols.
        frame_seconds: from one frame to the next.
    """

    waveform: npt.NDArray[np.float32]
    sample_rate: int
    text: str
    posteriors: dict[int, npt.NDArray[np.float32]]
    symbols: list[str]
    frame_seconds: float


def posteriors_of_utterance(path: Path, data: Path, name: str, index: int) -> ExitPosteriors:
    """Run the full model, with all its exits, over one utterance of a manifest.

    Args:
        path: a checkpoint of model ``skd_ctc``.
        data: folder of ``<name>.tsv``, labels and dictionary.
        name: of the subset.
        index: place of the utterance in the manifest, from 0.

    Raises:
        UserError: what :mod:`fairseq_skd.infer` would refuse, or no such utterance.
    """
    trained = checkpoint.open_trained(path)
    config = checkpoint.task_config(trained, TaskSettings(data=str(data.absolute())))
    label = config["labels"][0] if isinstance(config["labels"], list) else config["labels"]
    chosen = subset.read_manifest(data, name)
    if not 0 <= index < len(chosen.names):
        raise UserError(f"--utterance {index}: {chosen.manifest} has utterances 0 to {len(chosen.names) - 1}")
    dictionary = subset.read_dictionary(data / f"dict.{label}.txt", trained.dictionary, trained.symbols)
    units = subset.read_references(data / f"{name}.{label}", chosen, dictionary)
    one = chosen._replace(names=[chosen.names[index]], samples=[chosen.samples[index]])
    subset.check_audio(one, config["sample_rate"], trained.shortest_audio)
    waveform, sample_rate = soundfile.read(Path(one.root) / one.names[0], dtype="float32")

    model = checkpoint.build_model(trained, checkpoint.build_task(trained, config, dictionary), trained.depth)
    source = torch.from_numpy(waveform)
    if config["normalize"]:
        source = torch.nn.functional.layer_norm(source, source.shape)
    with torch.inference_mode():
        logits = model(source=source.unsqueeze(0), padding_mask=None)["exit_logits"]  # layer -> (T, 1, V)
    strides = [stride for _, _, stride in parse_conv_layers(trained.encoder.architecture["conv_feature_layers"])]
    return ExitPosteriors(
        waveform=waveform,
        sample_rate=sample_rate,
        text=results.transcribe([units[index]], dictionary, "letter").words[0],
        posteriors={layer: logits[layer][:, 0].softmax(dim=-1).numpy() for layer in sorted(logits, reverse=True)},
        symbols=list(dictionary.symbols),
        frame_seconds=float(np.prod(strides)) / sample_rate,
    )
