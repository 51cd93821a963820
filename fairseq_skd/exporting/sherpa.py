"""Format ``sherpa``: a model for sherpa-onnx, which runs on phones, small boards and servers.

sherpa-onnx takes it as an Omnilingual ASR model: one input ``x``, one output of log posteriors, and
no metadata. It scales the audio of each utterance to zero mean and unit variance.
"""

from pathlib import Path

from torch import Tensor, nn

from fairseq_skd.encoders.pretrained import PretrainedEncoder
from fairseq_skd.errors import UserError
from fairseq_skd.exporting.onnx import example_audio, export, write_tokens
from fairseq_skd.files.units import WORD_END, WORD_MARK
from fairseq_skd.onnx_recognizer import TOKENS
from fairseq_skd.recognizer import Recognizer

BLANK = "<blk>"  # by this name sherpa-onnx finds the blank
SAMPLE_RATE = 16000
FRAME_STEP = 320  # samples; sherpa-onnx computes times from it, whatever the model


class Graph(nn.Module):
    """What sherpa-onnx runs.

    Args:
        rec: loaded at one exit.
    """

    def __init__(self, rec: Recognizer) -> None:
        super().__init__()
        self.model = rec.model

    def forward(self, x: Tensor) -> Tensor:
        """Compute log posteriors, (N, T, V), from scaled audio without padding, (N, samples)."""
        return self.model.get_normalized_probs(self.model(source=x), log_probs=True).transpose(0, 1)


def write(rec: Recognizer, folder: Path, int8: bool = False) -> None:
    """Write ``model.onnx`` and ``tokens.txt``.

    Args:
        rec: loaded at one exit, on the CPU, in float32.
        folder: an existing folder.
        int8: write ``model.int8.onnx``, too, whose matrix products are in 8 bits.

    Raises:
        UserError: sherpa-onnx would give other texts than the checkpoint, or the checkpoint has no
            dictionary, or is above 2 GB.
    """
    check(rec)
    export(rec, Graph(rec), (example_audio(rec),), {"x": ("N", "samples"), "log_probs": ("N", "T")}, folder, int8)
    # sherpa-onnx puts a space where a symbol begins with the mark of word pieces.
    letters = rec.post_process == "letter"
    symbols = [WORD_MARK if letters and symbol == WORD_END else symbol for symbol in rec.symbols]
    write_tokens([BLANK, *symbols[1:]], folder / TOKENS)


def check(rec: Recognizer) -> None:
    """Check that sherpa-onnx prepares audio and joins units as the checkpoint wants it.

    Raises:
        UserError: it does not; the message says why.
    """
    encoder = PretrainedEncoder.from_w2v_args(rec.config["model"]["w2v_args"])
    instead = "use --format onnx"
    if encoder.architecture.get("extractor_mode") == "layer_norm" and not encoder.normalize:
        raise UserError(
            f"checkpoint {rec.path} cannot be exported to sherpa-onnx: sherpa-onnx scales audio to zero mean and unit "
            f"variance, but this encoder was trained with normalize=false, and its layer-norm feature extractor "
            f"depends on the scale; {instead}"
        )
    if rec.sample_rate != SAMPLE_RATE:
        raise UserError(
            f"checkpoint {rec.path} cannot be exported to sherpa-onnx: it takes audio at {rec.sample_rate} Hz, "
            f"sherpa-onnx gives {SAMPLE_RATE} Hz; {instead}"
        )
    if rec.frame_grid.step != FRAME_STEP:
        raise UserError(
            f"checkpoint {rec.path} cannot be exported to sherpa-onnx: its frames are {1000 * rec.frame_seconds:g} ms "
            f"apart, but sherpa-onnx counts every frame as 20 ms, so its times would be wrong; {instead}"
        )
    if rec.post_process not in ("letter", "sentencepiece"):
        raise UserError(
            f"checkpoint {rec.path} cannot be exported to sherpa-onnx: its criterion.post_process={rec.post_process}, "
            f"but sherpa-onnx joins letters and sentencepiece units only; {instead}"
        )
