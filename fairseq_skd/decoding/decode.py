"""Decoding a subset from end to end: everything is checked, then the model runs, then the files are written."""

import dataclasses
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fairseq
import torch
from tqdm import tqdm

import fairseq_skd
from fairseq_skd.decoding.config import Settings
from fairseq_skd.decoding.evaluation_set import EvaluationSet, Ran, choose_device, open_set, precision, run
from fairseq_skd.decoding.searches import Searcher, SearchPlan, plan_search
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import absolute
from fairseq_skd.files.progress import STYLE
from fairseq_skd.files.subset import better_post_process, check_audio
from fairseq_skd.models.heads import NoExitError, check_exit
from fairseq_skd.models.trained import TrainedModel, open_trained
from fairseq_skd.recognizer import Recognizer
from fairseq_skd.scoring import transcripts
from fairseq_skd.search.greedy import Hypothesis

_FEW = 5  # symbols that a message names


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that was checked before any time is spent."""

    settings: Settings
    trained: TrainedModel
    exit_layer: int
    data: EvaluationSet
    search: SearchPlan
    searcher: Searcher
    conditions: dict[str, Any]  # for summary.json
    sample_rate: int
    folder: Path


class Frames(Iterable[Ran]):
    """Logits of a subset at one exit, batch by batch.

    Attributes:
        batches: as they are computed, or read.
        parameters: numbers that recognition at the exit uses.
        device: name of the GPU, or ``cpu``.
        threads: of the encoder, on the CPU; a search may have fewer.
        unreadable: place in the manifest -> why its audio could not be read; complete after the last batch.
        utterances: number of utterances, those that cannot be read included.
    """

    def __init__(
        self,
        batches: Iterable[Ran],
        parameters: int,
        device: str,
        threads: int,
        unreadable: dict[int, str],
        utterances: int = 0,
    ) -> None:
        self.batches, self.parameters, self.unreadable = batches, parameters, unreadable
        self.device, self.threads, self.utterances = device, threads, utterances

    def __iter__(self) -> Iterator[Ran]:
        return iter(self.batches)

    @classmethod
    def computed(cls, plan: Plan) -> "Frames":
        """Run the checkpoint; its weights are used up."""
        device, dtype = choose_device(plan.settings.common)
        recognizer = Recognizer(plan.trained, (plan.exit_layer,), device, dtype)
        unreadable: dict[int, str] = {}
        subset = plan.data.subset
        batches = run(recognizer, subset, plan.settings.dataset, unreadable.__setitem__)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        return cls(batches, recognizer.parameters, name, torch.get_num_threads(), unreadable, len(subset.names))


def decode(settings: Settings) -> tuple[Path, dict[str, Any]]:
    """Decode, score, write.

    Audio that cannot be read is left out, of the error rates as well; ``not_decoded`` in the summary lists it.

    Returns:
        the folder of the results and the summary.

    Raises:
        UserError: anything else that cannot be used, see the modules of this package; or no word is left to count.
    """
    choose_device(settings.common)
    plan = prepare(settings)
    _warn_of_references(plan.data)
    return plan.folder, search_and_write(plan, Frames.computed(plan))


def prepare(settings: Settings) -> Plan:
    """Read and check all inputs, the language model included; builds no acoustic model and asks no GPU."""
    trained = open_trained(absolute(settings.common_eval.path))
    layer = settings.decoding.layer or 0
    try:
        exit_layer = check_exit(layer, trained.students, trained.depth)
    except NoExitError as error:
        raise UserError(f"decoding.layer={layer}: {error}") from error
    data = open_set(settings.task, settings.dataset, settings.common_eval.post_process, trained)
    search = plan_search(settings.decoding, data.dictionary, data.reference.words)
    check_audio(data.subset, trained.waveforms.sample_rate, trained.waveforms.shortest, leave_out=True)
    searcher = search.build(data.dictionary)  # now, because a language model may turn out to be broken
    name = f"{settings.dataset.gen_subset}-layer{exit_layer}"
    if settings.decoding.type != "viterbi":
        name += f"-{settings.decoding.type}"
    folder = results_folder(settings.common_eval.results_path or os.path.join("decode", name))
    conditions = _conditions(settings, trained, exit_layer, data) | search.summary()
    rate = trained.waveforms.sample_rate
    return Plan(settings, trained, exit_layer, data, search, searcher, conditions, rate, folder)


def search_and_write(plan: Plan, frames: Frames) -> dict[str, Any]:
    """Search, score, write.

    Returns:
        the summary.

    Raises:
        UserError: no word is left to count, or what :func:`~fairseq_skd.decoding.evaluation_set.run` raises.
    """
    data, utterances = plan.data, plan.data.subset
    hypotheses, samples, seconds = _search(frames, plan.searcher, len(utterances.names))
    decoded, reference = list(hypotheses), data.reference.of(list(hypotheses))
    if frames.unreadable and not any(words.split() for words in reference.words):
        first, count = min(frames.unreadable), len(frames.unreadable)
        more = f" ({count} files in all, no word is left to count)" if count > 1 else ""
        raise UserError(f"{utterances.where(first)} cannot be read: {frames.unreadable[first]}{more}")
    hypothesis = transcripts.transcribe_hypotheses(list(hypotheses.values()), data.dictionary, data.post_process)
    if not plan.settings.common_eval.quiet:
        for text, wanted in zip(hypothesis.words, reference.words, strict=True):
            print(f"HYPO: {text}\nREF: {wanted}")
    if not any(one.units for one in hypotheses.values()):
        print(plan.search.empty, file=sys.stderr)
    summary = _error_rates(transcripts.score(hypothesis, reference))
    summary |= plan.conditions | _costs(frames, samples, seconds, plan.sample_rate)
    summary["sentences"] = len(hypotheses)
    summary["not_decoded"] = [
        {"file": utterances.path(place), "line": place + 2, "reason": reason}
        for place, reason in sorted(frames.unreadable.items())
    ]
    file = plan.folder / "summary.json"
    file.unlink(missing_ok=True)  # without it the folder is incomplete, with it the other files are its own
    transcripts.write_transcripts(plan.folder, hypothesis, reference, decoded)
    transcripts.write_summary(file, summary)
    return summary


def _search(frames: Iterable[Ran], searcher: Searcher, utterances: int) -> tuple[dict[int, Hypothesis], int, float]:
    """Hypotheses by place in the manifest, in its order; samples; and seconds of encoder, head and search."""
    hypotheses: dict[int, Hypothesis] = {}
    samples, seconds = 0, 0.0
    with tqdm(total=utterances, desc="decoding", unit="utterance", **STYLE) as progress:
        for batch in frames:
            started = time.perf_counter()
            (logits,) = batch.output.logits.values()
            found = searcher(logits, batch.output.lengths)
            seconds += batch.seconds + time.perf_counter() - started
            samples += batch.samples
            hypotheses.update(zip(batch.places, found, strict=True))
            progress.update(len(found))
    return dict(sorted(hypotheses.items())), samples, seconds


def results_folder(path: str) -> Path:
    """The folder that is written into, made if it is missing.

    Raises:
        UserError: it cannot be made or written into.
    """
    folder = absolute(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the results folder {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"the results folder {folder} is not writable")
    return folder


def _warn_of_references(data: EvaluationSet) -> None:
    """Warn on stderr of references that raise the error rates, whatever the model writes."""
    if data.unknown:
        most = ", ".join(f"{symbol!r} {count}" for symbol, count in data.unknown.most_common(_FEW))
        more = ", ..." if len(data.unknown) > _FEW else ""
        print(
            f"{data.unknown.total()} symbols of the references of {data.subset.manifest} are no units of the "
            f"dictionary ({most}{more}): no model can write them, each counts as an error",
            file=sys.stderr,
        )
    if better := better_post_process(data.post_process, data.reference.units):
        print(
            f"common_eval.post_process=letter makes one word of each transcript, no reference of "
            f"{data.subset.manifest} has a word boundary |: set common_eval.post_process={better}",
            file=sys.stderr,
        )


def _error_rates(score: transcripts.Score) -> dict[str, Any]:
    return {
        "wer": round(score.words.rate, 4),
        "cer": round(score.characters.rate, 4),
        "word_errors": score.words.errors,
        "words": score.words.total,
        "character_errors": score.characters.errors,
        "characters": score.characters.total,
    }


def _conditions(settings: Settings, trained: TrainedModel, exit_layer: int, data: EvaluationSet) -> dict[str, Any]:
    """What ``summary.json`` says of checkpoint, subset and settings."""
    return {
        "unknown_symbols": data.unknown.total(),
        "exit_layer": exit_layer,
        "layers": trained.depth,
        "checkpoint": trained.path,
        "manifest": str(data.subset.manifest),
        "max_tokens": settings.dataset.max_tokens,
        "batch_size": settings.dataset.batch_size,
        "precision": str(precision(settings.common)).removeprefix("torch."),
        "post_process": data.post_process,
        "versions": {
            "fairseq_skd": fairseq_skd.__version__,
            "fairseq": fairseq.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _costs(frames: Frames, samples: int, seconds: float, sample_rate: int) -> dict[str, Any]:
    seconds_of_audio = samples / sample_rate
    return {
        "parameters": frames.parameters,
        "audio_seconds": round(seconds_of_audio, 3),
        "decode_seconds": round(seconds, 3),
        "real_time_factor": round(seconds / seconds_of_audio, 6),
        "device": frames.device,
        "threads": frames.threads,
    }
