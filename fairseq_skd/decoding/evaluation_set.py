"""Read a subset with its references, check it against a checkpoint, run the checkpoint on it."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fairseq.data import Dictionary
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fairseq_skd.decoding.config import CommonSettings, DatasetSettings, TaskSettings
from fairseq_skd.errors import UserError, shown
from fairseq_skd.files import subset
from fairseq_skd.files.dictionaries import fitting_post_process
from fairseq_skd.files.disk import absolute
from fairseq_skd.files.subset import Subset
from fairseq_skd.files.waveforms import UnreadableAudioError, Waveforms, length_batches, pad
from fairseq_skd.models.trained import TrainedModel
from fairseq_skd.recognizer import DeviceMemoryError, NotFiniteError, Output, Recognizer
from fairseq_skd.scoring import transcripts

Unreadable = Callable[[int, str], None]  # index in the manifest, reason


@dataclass(frozen=True)
class EvaluationSet:
    """A subset to decode, with its references.

    Attributes:
        subset: the utterances.
        dictionary: the dictionary of labels and checkpoint.
        post_process: how units become words.
        reference: the transcripts; None: the subset has no labels.
        unknown: symbols of the references that are not in the dictionary, with their counts.
    """

    subset: Subset
    dictionary: Dictionary
    post_process: str
    reference: transcripts.Transcript | None
    unknown: Counter[str]


def open_set(
    task: TaskSettings,
    dataset: DatasetSettings,
    post_process: str | None,
    trained: TrainedModel,
    optional: bool = False,
) -> EvaluationSet:
    """Read manifest, labels and dictionary.

    Args:
        task: folders and label extension.
        dataset: name of the subset.
        post_process: ``common_eval.post_process``; None: as in the checkpoint's validation.
        trained: the checkpoint.
        optional: whether the labels may be missing, if neither ``task.labels`` nor
            ``task.label_dir`` names them. A line on stderr says so.

    Raises:
        UserError: a file is missing or damaged, the dictionary differs from the checkpoint's, or
            the labels hold no word.
    """
    data, name = absolute(task.data), dataset.gen_subset
    labels = absolute(task.label_dir) if task.label_dir is not None else data
    extension = _extension(task.labels, trained)
    utterances = subset.read_manifest(data, name)
    path, label_file = labels / f"dict.{extension}.txt", labels / f"{name}.{extension}"
    unlabelled = optional and task.labels is None and task.label_dir is None and not label_file.exists()
    if unlabelled and trained.dictionary is not None and not path.exists():
        dictionary = trained.dictionary
    else:
        dictionary = subset.read_matching_dictionary(path, trained.dictionary, trained.symbols)
    where = key = "common_eval.post_process"
    if not post_process:
        where = f"{key}=null takes it from {trained.path}, whose criterion.post_process"
    process = fitting_post_process(post_process or trained.post_process, dictionary.symbols, where)
    if unlabelled:
        print(
            f"{label_file} does not exist: decoding without references and error rates (or set task.label_dir)",
            file=sys.stderr,
        )
        return EvaluationSet(utterances, dictionary, process, None, Counter())
    units = [line.split() for line in subset.read_labels(label_file, utterances)]
    reference, unknown = transcripts.transcribe_references(units, dictionary, process)
    if not any(words.split() for words in reference.words):
        raise UserError(f"{label_file} holds no words, so error rates are undefined: write its transcripts")
    return EvaluationSet(utterances, dictionary, process, reference, unknown)


def _extension(asked: str | list[str] | None, trained: TrainedModel) -> str:
    """Return the extension of the label file; a name in a checkpoint cannot be trusted."""
    given = trained.config["task"].get("labels") if asked is None else asked
    if given is None:
        raise UserError(f"{trained.path} does not name its labels: set task.labels, for example to ltr")
    names = list(given) if isinstance(given, list | tuple) else [given]
    if len(names) != 1 or type(names[0]) is not str or Path(names[0]).name != names[0]:
        where = f"{trained.path}: " if asked is None else ""
        raise UserError(f"{where}task.labels={shown(names)} is not one file extension: set task.labels, such as to ltr")
    return names[0]


def choose_device(common: CommonSettings) -> tuple[torch.device, torch.dtype]:
    """Return device and precision.

    Raises:
        UserError: half precision is set without CUDA.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and not common.cpu else "cpu")
    if common.fp16 and device.type == "cpu":
        raise UserError(
            "common.fp16=true needs CUDA, which is not available or disabled by common.cpu=true: set it to false"
        )
    return device, precision(common)


def precision(common: CommonSettings) -> torch.dtype:
    """Return the precision; touches no GPU, which a forked process must not."""
    return torch.float16 if common.fp16 else torch.bfloat16 if common.bf16 else torch.float32


class Ran(NamedTuple):
    """One batch that was run.

    Attributes:
        places: (B,) indices in the manifest.
        output: logits and real frames.
        samples: real audio samples.
        seconds: wall time of the encoder, without reading audio.
    """

    places: list[int]
    output: Output
    samples: int
    seconds: float


def run(
    recognizer: Recognizer, utterances: Subset, settings: DatasetSettings, unreadable: Unreadable | None = None
) -> Iterator[Ran]:
    """Run a checkpoint on a subset, longest utterances first.

    Args:
        recognizer: the checkpoint at some exits.
        utterances: the subset.
        settings: size of a batch, and number of reading processes.
        unreadable: called for an utterance whose audio cannot be read; the batch runs without it.
            With None such an utterance raises.

    Raises:
        UserError: audio cannot be read, logits are not finite, or the GPU's memory is too small.
    """
    batches = length_batches(utterances.samples, settings.max_tokens, settings.batch_size)
    loader: DataLoader = DataLoader(
        _Waves(utterances, recognizer.waveforms),
        batch_sampler=batches,
        num_workers=settings.num_workers,
        collate_fn=_collate,
    )
    for places, lengths, waves, left_out in loader:
        for place, reason in left_out:
            if unreadable is None:
                raise UserError(f"{utterances.where(place)} cannot be read: {reason}")
            unreadable(place, reason)
        if places:
            yield _run_batch(recognizer, utterances, places, lengths, waves)


def _run_batch(
    recognizer: Recognizer, utterances: Subset, places: list[int], samples: int, batch: tuple[Tensor, Tensor]
) -> Ran:
    started = time.perf_counter()
    try:
        # cudnn: two runs give the same bytes. Not around the yield, where two interleaved runs
        # would restore each other's flags.
        with torch.backends.cudnn.flags(enabled=True, deterministic=True):
            output = recognizer(*batch)
        output.check_finite()
    except DeviceMemoryError as error:
        raise UserError("a batch does not fit in the GPU's memory: lower dataset.max_tokens") from error
    except NotFiniteError as error:
        raise UserError(
            f"{recognizer.path}: the output of exit {error.exit_layer} is not finite for "
            f"{utterances.where(places[error.row])}: decode in float32, or use another checkpoint"
        ) from error
    return Ran(places, output, samples, time.perf_counter() - started)


class _Waves(Dataset):
    """Scaled audio by index in the manifest.

    If it cannot be read, the item is the reason: an exception would lose its type on the way from
    a worker.
    """

    def __init__(self, utterances: Subset, waveforms: Waveforms) -> None:
        self.utterances, self.waveforms = utterances, waveforms

    def __getitem__(self, place: int) -> tuple[int, Tensor | str]:
        try:
            wave = self.waveforms.read(self.utterances.path(place), listed=True)
        except UnreadableAudioError as error:
            return place, error.reason
        if len(wave) != (listed := self.utterances.samples[place]):
            found = f"it decodes to {len(wave)} samples, but the manifest lists {listed}"
            return place, f"{found}: replace the file, or write the manifest again"
        return place, wave

    def __len__(self) -> int:
        return len(self.utterances.names)


def _collate(
    items: Sequence[tuple[int, Tensor | str]],
) -> tuple[list[int], int, tuple[Tensor, Tensor] | None, list[tuple[int, str]]]:
    """Return indices, real samples and padded batch of readable items, and the unreadable items."""
    readable: dict[int, Any] = {place: wave for place, wave in items if not isinstance(wave, str)}
    left_out = [(place, reason) for place, reason in items if isinstance(reason, str)]
    samples = sum(map(len, readable.values()))
    return list(readable), samples, pad(list(readable.values())) if readable else None, left_out
