"""Decode a subset: check all inputs, run the model, write the files."""

import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fairseq
import torch
from torch import Tensor
from tqdm import tqdm

import fairseq_skd
from fairseq_skd.decoding.config import Settings
from fairseq_skd.decoding.evaluation_set import EvaluationSet, Ran, choose_device, open_set, precision, run
from fairseq_skd.decoding.searches import Searcher, SearchPlan, plan_search
from fairseq_skd.errors import UserError, shown
from fairseq_skd.files.disk import absolute, file_hash, replacing
from fairseq_skd.files.progress import STYLE
from fairseq_skd.files.subset import better_post_process, check_audio
from fairseq_skd.models.heads import NoExitError, check_exit
from fairseq_skd.models.trained import TrainedModel, open_trained
from fairseq_skd.recognizer import Recognizer
from fairseq_skd.scoring import transcripts
from fairseq_skd.scoring.leading import leading, noted
from fairseq_skd.search.greedy import Hypothesis
from fairseq_skd.transcription.formats import Named, ctm
from fairseq_skd.transcription.transcribing import align_hypothesis

_FEW = 5  # symbols named in one message


@dataclasses.dataclass(frozen=True)
class Plan:
    """Checked inputs of a decode."""

    settings: Settings
    trained: TrainedModel
    exit_layer: int
    data: EvaluationSet
    search: SearchPlan
    searcher: Searcher
    conditions: dict[str, Any]  # for summary.json
    sample_rate: int
    folder: Path


class SubsetLogits(Iterable[Ran]):
    """Logits of a subset at one exit, batch by batch.

    Attributes:
        batches: the batches, computed or read from disk.
        parameters: number of parameters up to the exit.
        device: name of the GPU, or ``cpu``.
        threads: CPU threads of the encoder; a search may use fewer.
        unreadable: index in the manifest -> why its audio could not be read; complete after the
            last batch.
        utterances: number of utterances, with those that cannot be read.
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
    def computed(cls, plan: Plan) -> "SubsetLogits":
        """Run the checkpoint; the plan cannot run again, since the model takes over its weights."""
        device, dtype = choose_device(plan.settings.common)
        recognizer = Recognizer(plan.trained, (plan.exit_layer,), device, dtype)
        unreadable: dict[int, str] = {}
        subset = plan.data.subset
        batches = run(recognizer, subset, plan.settings.dataset, unreadable.__setitem__)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        return cls(batches, recognizer.parameters, name, torch.get_num_threads(), unreadable, len(subset.names))


def decode(settings: Settings) -> tuple[Path, dict[str, Any]]:
    """Decode a subset, score it if it has references, and write the results.

    Audio that cannot be read is left out, also from the error rates; ``not_decoded`` in the summary
    lists it.

    Returns:
        the results folder and the summary.

    Raises:
        UserError: another input cannot be used, or no reference word is left to score.
    """
    choose_device(settings.common)
    plan = prepare(settings)
    _warn_of_references(plan.data)
    return plan.folder, search_and_write(plan, SubsetLogits.computed(plan))


def prepare(settings: Settings) -> Plan:
    """Read and check all inputs, also the language model.

    Neither builds the acoustic model nor touches a GPU.

    Raises:
        UserError: an input cannot be used, or the results folder holds another decode.
    """
    trained = open_trained(_checkpoint(settings.common_eval.path))
    layer = settings.decoding.layer or 0
    try:
        exit_layer = check_exit(layer, trained.students, trained.depth)
    except NoExitError as error:
        raise UserError(f"decoding.layer={layer}: {error}") from error
    data = open_set(settings.task, settings.dataset, settings.common_eval.post_process, trained, optional=True)
    references = data.reference.words if data.reference is not None else []
    search = plan_search(settings.decoding, data.dictionary, data.post_process, references)
    check_audio(data.subset, trained.waveforms.sample_rate, trained.waveforms.shortest, leave_out=True)
    searcher = search.build(data.dictionary)  # now: it loads the language model, which may be broken
    name = f"{settings.dataset.gen_subset}-layer{exit_layer}"
    if settings.decoding.type != "viterbi":
        name += f"-{settings.decoding.type}"
    folder = results_folder(settings.common_eval.results_path or os.path.join("decode", name))
    conditions = _conditions(settings, trained, exit_layer, data) | search.summary()
    _check_same_decode(folder, conditions)
    rate = trained.waveforms.sample_rate
    return Plan(settings, trained, exit_layer, data, search, searcher, conditions, rate, folder)


def _checkpoint(path: str) -> Path:
    """Return the absolute path of a checkpoint; for a folder of checkpoints, suggest one in it.

    Raises:
        UserError: the path is a folder of a training.
    """
    file = absolute(path)
    exported = ("checkpoint.pt", "config.json", "model*.onnx")
    if file.is_dir() and not any(next(file.glob(name), None) for name in exported):
        best = next((one for one in ("checkpoint_best.pt", "checkpoint_last.pt") if (file / one).is_file()), None)
        advice = f"give common_eval.path={file / best}" if best else "give a file, such as its checkpoint_best.pt"
        raise UserError(f"common_eval.path={file} is a folder: {advice}")
    return file


def search_and_write(plan: Plan, frames: SubsetLogits) -> dict[str, Any]:
    """Search the logits for text, score it and write the results.

    Returns:
        the summary.

    Raises:
        UserError: nothing is left to score or write, or the model cannot be run, see
            :func:`~fairseq_skd.decoding.evaluation_set.run`.
    """
    data, utterances = plan.data, plan.data.subset
    hypotheses, samples, seconds = _search(frames, plan, len(utterances.names))
    decoded = list(hypotheses)
    reference = data.reference.of(decoded) if data.reference is not None else None
    nothing = not decoded if reference is None else not any(words.split() for words in reference.words)
    if frames.unreadable and nothing:
        first, count = min(frames.unreadable), len(frames.unreadable)
        more = f" ({count} files in all, no word is left to score)" if count > 1 else ""
        raise UserError(f"{utterances.where(first)} cannot be read: {frames.unreadable[first]}{more}")
    found = [hypothesis for hypothesis, _ in hypotheses.values()]
    hypothesis = transcripts.transcribe_hypotheses(found, data.dictionary, data.post_process)
    if not plan.settings.common_eval.quiet:
        for place, text in enumerate(hypothesis.words):
            print(f"HYPO: {text}" + ("" if reference is None else f"\nREF: {reference.words[place]}"))
    if not any(one.units for one in found):
        print(plan.search.empty, file=sys.stderr)
    summary: dict[str, Any] = {}
    if reference is not None:
        summary = _error_rates(transcripts.score(hypothesis, reference)) | noted(leading(reference.words))
    summary |= plan.conditions | _costs(frames, samples, seconds, plan.sample_rate)
    summary["sentences"] = len(hypotheses)
    summary["not_decoded"] = [
        {"file": utterances.path(place), "line": place + 2, "reason": reason}
        for place, reason in sorted(frames.unreadable.items())
    ]
    file = plan.folder / "summary.json"
    file.unlink(missing_ok=True)  # written last: a folder with a summary is complete
    transcripts.write_transcripts(plan.folder, hypothesis, reference, decoded)
    times = plan.folder / "hypo.ctm"
    times.unlink(missing_ok=True)  # of an earlier decode
    if plan.settings.decoding.times:
        with replacing(times) as beside:
            beside.write_text("".join(lines for _, lines in hypotheses.values()), encoding="utf-8")
    transcripts.write_summary(file, summary)
    return summary


def _search(frames: Iterable[Ran], plan: Plan, utterances: int) -> tuple[dict[int, tuple[Hypothesis, str]], int, float]:
    """Return hypotheses and their CTM lines by index in the manifest, samples, and seconds.

    The seconds are those of encoder and search, without the times of words.
    """
    hypotheses: dict[int, tuple[Hypothesis, str]] = {}
    samples, seconds = 0, 0.0
    with tqdm(total=utterances, desc="decoding", unit="utterance", **STYLE) as progress:
        for batch in frames:
            started = time.perf_counter()
            (logits,) = batch.output.logits.values()
            found = plan.searcher(logits, batch.output.lengths)
            seconds += batch.seconds + time.perf_counter() - started
            samples += batch.samples
            lines = _times(plan, batch, logits, found) if plan.settings.decoding.times else [""] * len(found)
            hypotheses.update(zip(batch.places, zip(found, lines, strict=True), strict=True))
            progress.update(len(found))
    return dict(sorted(hypotheses.items())), samples, seconds


def _times(plan: Plan, batch: Ran, logits: Tensor, found: Sequence[Hypothesis]) -> list[str]:
    """Align each hypothesis with its frames; returns its lines of ``hypo.ctm``."""
    log_probs = logits.float().log_softmax(dim=-1).transpose(0, 1).cpu().numpy()  # (T, B, V) -> (B, T, V)
    lines = []
    for row, (place, hypothesis) in enumerate(zip(batch.places, found, strict=True)):
        frames = log_probs[row, : int(batch.output.lengths[row])]
        aligned = align_hypothesis(frames, hypothesis, plan.search.lexicon, plan.data.dictionary)
        subset = plan.data.subset
        transcript = aligned.transcript(
            plan.data.dictionary,
            plan.data.post_process,
            plan.trained.encoder.frame_grid.step / plan.sample_rate,
            subset.samples[place] / plan.sample_rate,
        )
        name = os.path.splitext(subset.names[place])[0]
        lines.append(ctm(Named(subset.path(place), name, transcript)))
    return lines


def results_folder(path: str) -> Path:
    """Return the absolute results folder; it is created if missing.

    Raises:
        UserError: the folder cannot be created or written.
    """
    folder = absolute(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the results folder {folder} cannot be created ({error.strerror}): set common_eval.results_path to another"
        ) from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"the results folder {folder} is not writable: set common_eval.results_path to another")
    return folder


def _check_same_decode(folder: Path, conditions: Mapping[str, Any]) -> None:
    """Check that the folder holds no results of another decode; the same decode may run again.

    Raises:
        UserError: its ``summary.json`` is of another checkpoint, exit or subset.
    """
    try:
        earlier = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    for key in ("checkpoint", "exit_layer", "manifest") if isinstance(earlier, dict) else ():
        if key in earlier and os.path.realpath(str(earlier[key])) != os.path.realpath(str(conditions[key])):
            raise UserError(
                f"{folder} holds the results of another decode ({key} {shown(earlier[key])}, now {conditions[key]}): "
                f"set common_eval.results_path to another folder, or delete this one"
            )


def _warn_of_references(data: EvaluationSet) -> None:
    """Warn on stderr of references that no output of the model can match."""
    if data.unknown:
        most = ", ".join(f"{symbol!r} {count}" for symbol, count in data.unknown.most_common(_FEW))
        more = ", ..." if len(data.unknown) > _FEW else ""
        print(
            f"{data.unknown.total()} symbols in the references of {data.subset.manifest} are not in the dictionary "
            f"({most}{more}): the model cannot output them, so each counts as an error",
            file=sys.stderr,
        )
    if data.reference is None:
        return
    if better := better_post_process(data.post_process, data.reference.units):
        print(
            f"common_eval.post_process=letter makes one word of each transcript, because no reference of "
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
    """List checkpoint, subset and settings for ``summary.json``."""
    return {
        "unknown_symbols": data.unknown.total(),
        "exit_layer": exit_layer,
        "layers": trained.depth,
        "checkpoint": trained.path,
        "checkpoint_sha256": file_hash(trained.path),
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


def _costs(frames: SubsetLogits, samples: int, seconds: float, sample_rate: int) -> dict[str, Any]:
    seconds_of_audio = samples / sample_rate
    return {
        "parameters": frames.parameters,
        "audio_seconds": round(seconds_of_audio, 3),
        "decode_seconds": round(seconds, 3),
        "real_time_factor": round(seconds / seconds_of_audio, 6),
        "device": frames.device,
        "threads": frames.threads,
    }
