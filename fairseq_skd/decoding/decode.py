"""Decoding a subset from end to end: everything is checked, then the model runs, then the files are written."""

import dataclasses
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fairseq
import torch

import fairseq_skd
from fairseq_skd.corpora import subset
from fairseq_skd.decoding import checkpoint, results
from fairseq_skd.decoding.batches import length_batches, load_batches
from fairseq_skd.decoding.search import Recognition, Searcher, recognise
from fairseq_skd.decoding.searchers import SearchPlan, plan_search
from fairseq_skd.decoding.settings import Settings
from fairseq_skd.encoders.exits import check_decode_layer
from fairseq_skd.errors import UserError
from fairseq_skd.files import absolute
from fairseq_skd.models.skd_ctc import SkdCtc
from fairseq_skd.models.trained import TrainedModel, build_model, open_trained

_FEW = 5  # symbols that a message names


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that was checked before any time is spent."""

    settings: Settings
    trained: TrainedModel
    exit_layer: int
    task_config: dict[str, Any]
    subset: subset.Subset
    dictionary: fairseq.data.Dictionary
    post_process: str
    reference: results.Transcript
    unknown: Counter[str]  # symbols of the references that are no units of the dictionary
    search: SearchPlan
    searcher: Searcher
    folder: Path
    device: torch.device
    dtype: torch.dtype


def decode(settings: Settings) -> tuple[Path, dict[str, Any]]:
    """Decode, score, write.

    Audio that cannot be read is left out, of the error rates as well; ``not_decoded`` in the summary lists it.

    Returns:
        the folder of the results and the summary.

    Raises:
        UserError: anything else that cannot be used, see the modules of this package; or no word is left to count.
    """
    plan = prepare(settings, leave_out=True)
    _warn_of_references(plan)
    unreadable: dict[int, str] = {}
    model, batches = load(plan, plan.exit_layer, unreadable.__setitem__)
    with torch.backends.cudnn.flags(enabled=True, deterministic=True):  # two runs give the same bytes
        count, where = len(plan.subset.names), plan.subset.where
        found = recognise(model, batches, count, plan.device, plan.dtype, where, plan.searcher)
    decoded = list(found.hypotheses)
    hypotheses, reference = list(found.hypotheses.values()), plan.reference.of(decoded)
    if unreadable and not any(words.split() for words in reference.words):
        first = min(unreadable)
        more = f" ({len(unreadable)} files in all, no word is left to count)" if len(unreadable) > 1 else ""
        raise UserError(f"{plan.subset.where(first)} cannot be read: {unreadable[first]}{more}")
    hypothesis = results.transcribe_hypotheses(hypotheses, plan.dictionary, plan.post_process)
    if not settings.common_eval.quiet:
        for text, wanted in zip(hypothesis.words, reference.words, strict=True):
            print(f"HYPO: {text}\nREF: {wanted}")
    if not any(one.units for one in hypotheses):
        print(plan.search.empty, file=sys.stderr)
    parameters = checkpoint.count_parameters(model, plan.exit_layer, plan.trained.depth)
    summary = _summary(plan, results.score(hypothesis, reference), found, parameters)
    summary["not_decoded"] = [
        {"file": plan.subset.path(index), "line": index + 2, "reason": reason}
        for index, reason in sorted(unreadable.items())
    ]
    file = plan.folder / "summary.json"
    file.unlink(missing_ok=True)  # without it the folder is incomplete, with it the other files are its own
    results.write_transcripts(plan.folder, hypothesis, reference, decoded)
    results.write_summary(file, summary)
    return plan.folder, summary


def prepare(
    settings: Settings,
    layer_key: str = "decoding.layer",
    path_key: str = "common_eval.path",
    leave_out: bool = False,
) -> Plan:
    """Read and check all inputs, the language model included; builds no acoustic model.

    Args:
        settings: see there.
        layer_key: where the layer was given, for messages.
        path_key: where the checkpoint was given, for messages.
        leave_out: audio that cannot be read gets a warning, unless all of it is so.
    """
    device, dtype = _choose_device(settings)
    trained = open_trained(absolute(settings.common_eval.path), path_key)
    exit_layer = check_decode_layer(settings.decoding.layer or 0, trained.students, trained.depth, layer_key)
    task = settings.task
    label_dir = str(absolute(task.label_dir)) if task.label_dir is not None else None
    paths = dataclasses.replace(task, data=str(absolute(task.data)), label_dir=label_dir)
    config = checkpoint.task_config(trained, paths)
    name = settings.dataset.gen_subset
    chosen = subset.read_manifest(Path(paths.data), name)
    labels = Path(label_dir or paths.data)
    extension = config["labels"][0] if isinstance(config["labels"], list) else config["labels"]
    dictionary = subset.read_dictionary(labels / f"dict.{extension}.txt", trained.dictionary, trained.symbols)
    label_file = labels / f"{name}.{extension}"
    units = [line.split() for line in subset.read_labels(label_file, chosen)]
    asked = settings.common_eval.post_process
    process = results.choose_post_process(asked, trained.config, dictionary, trained.path)
    reference, unknown = results.transcribe_references(units, dictionary, process)
    if not any(words.split() for words in reference.words):
        raise UserError(f"{label_file} holds no words, error rates would be undefined")
    search = plan_search(settings.decoding, dictionary, reference.words)
    subset.check_audio(chosen, config["sample_rate"], trained.shortest_audio, leave_out=leave_out)
    return Plan(
        settings=settings,
        trained=trained,
        exit_layer=exit_layer,
        task_config=config,
        subset=chosen,
        dictionary=dictionary,
        post_process=process,
        reference=reference,
        unknown=unknown,
        search=search,
        searcher=search.build(dictionary),  # now, because a language model may turn out to be broken
        folder=_results_folder(settings, exit_layer),
        device=device,
        dtype=dtype,
    )


def load(
    plan: Plan, exit_layer: int, unreadable: Callable[[int, str], None] | None = None
) -> tuple[SkdCtc, Iterator[dict[str, Any]]]:
    """The model up to an exit, and the subset's batches in fairseq's form; the checkpoint's weights are used up.

    Args:
        plan: the checkpoint and the subset.
        exit_layer: the layers above are left out.
        unreadable: called with the place of an utterance whose audio cannot be read, and the reason; None: refuse it.

    Raises:
        UserError: fairseq reads other utterances than the manifest lists, or, from the batches, audio that cannot be
            read.
    """
    torch.manual_seed(plan.settings.common.seed)
    task = checkpoint.build_task(plan.trained, plan.task_config, plan.dictionary)
    model = build_model(plan.trained, task, exit_layer).to(device=plan.device, dtype=plan.dtype)
    dataset, name = plan.settings.dataset, plan.settings.dataset.gen_subset
    task.load_dataset(name)
    utterances = task.dataset(name)
    if len(utterances) != len(plan.subset.names):
        listed = f"{plan.subset.manifest}, which lists {len(plan.subset.names)}"
        raise UserError(f"fairseq reads {len(utterances)} utterances from {listed}")
    batches = length_batches(plan.subset.samples, dataset.max_tokens, dataset.batch_size)

    def refuse(index: int, reason: str) -> None:
        raise UserError(f"{plan.subset.where(index)} cannot be read: {reason}")

    return model, load_batches(utterances, batches, dataset.num_workers, unreadable or refuse)


def _warn_of_references(plan: Plan) -> None:
    """Warn on stderr of references that raise the error rates, whatever the model writes."""
    if plan.unknown:
        most = ", ".join(f"{symbol!r} {count}" for symbol, count in plan.unknown.most_common(_FEW))
        more = ", ..." if len(plan.unknown) > _FEW else ""
        print(
            f"{plan.unknown.total()} symbols of the references of {plan.subset.manifest} are no units of the "
            f"dictionary ({most}{more}): no model can write them, each counts as an error",
            file=sys.stderr,
        )
    if better := subset.better_post_process(plan.post_process, plan.reference.units):
        print(
            f"common_eval.post_process=letter makes one word of each transcript, no reference of "
            f"{plan.subset.manifest} has a word boundary |: set common_eval.post_process={better}",
            file=sys.stderr,
        )


def _choose_device(settings: Settings) -> tuple[torch.device, torch.dtype]:
    common = settings.common
    device = torch.device("cuda" if torch.cuda.is_available() and not common.cpu else "cpu")
    if common.fp16 and device.type == "cpu":
        raise UserError(
            "common.fp16=true needs CUDA, which is not available or switched off by common.cpu: leave it false"
        )
    return device, torch.float16 if common.fp16 else torch.bfloat16 if common.bf16 else torch.float32


def _results_folder(settings: Settings, exit_layer: int) -> Path:
    name = f"{settings.dataset.gen_subset}-layer{exit_layer}"
    if settings.decoding.type != "viterbi":
        name += f"-{settings.decoding.type}"
    folder = absolute(settings.common_eval.results_path or os.path.join("decode", name))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the results folder {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"the results folder {folder} is not writable")
    return folder


def _summary(plan: Plan, score: results.Score, found: Recognition, parameters: int) -> dict[str, Any]:
    seconds_of_audio = found.samples / plan.task_config["sample_rate"]
    return {
        "wer": round(score.words.rate, 4),
        "cer": round(score.characters.rate, 4),
        "word_errors": score.words.errors,
        "words": score.words.total,
        "character_errors": score.characters.errors,
        "characters": score.characters.total,
        "unknown_symbols": plan.unknown.total(),
        "sentences": len(found.hypotheses),
        "exit_layer": plan.exit_layer,
        "layers": plan.trained.depth,
        "parameters": parameters,
        "audio_seconds": round(seconds_of_audio, 3),
        "decode_seconds": round(found.seconds, 3),
        "real_time_factor": round(found.seconds / seconds_of_audio, 6),
        "checkpoint": plan.trained.path,
        "manifest": str(plan.subset.manifest),
        "device": torch.cuda.get_device_name(plan.device) if plan.device.type == "cuda" else "cpu",
        "max_tokens": plan.settings.dataset.max_tokens,
        "batch_size": plan.settings.dataset.batch_size,
        "precision": str(plan.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "post_process": plan.post_process,
        **plan.search.summary(),
        "versions": {
            "fairseq_skd": fairseq_skd.__version__,
            "fairseq": fairseq.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
