"""Check the data of a training before fairseq loads it; report utterances that it leaves out."""

import functools
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairseq.data import FairseqDataset, data_utils
from fairseq.tasks import FairseqTask
from fairseq.tasks.audio_finetuning import AudioFinetuningTask
from fairseq.tasks.hubert_pretraining import HubertPretrainingTask
from omegaconf import OmegaConf

from fairseq_skd import fairseq_fixes
from fairseq_skd.encoders.convolutions import ConvLayer, receptive_field
from fairseq_skd.errors import UserError
from fairseq_skd.files.dictionaries import read_dictionary
from fairseq_skd.files.disk import read_lines
from fairseq_skd.files.subset import Subset, check_audio, read_manifest
from fairseq_skd.models.config import root_of, select
from fairseq_skd.training.resuming import warn_of_other_settings
from fairseq_skd.training.training_labels import check_labels

logger = logging.getLogger(__name__)

_LENGTHS = ("min_sample_size", "max_keep_size")
_CROPPING = ("pad_audio", "random_crop")
_HEADERS = 100  # enough to notice a folder of another rate; all files of a corpus would take minutes


def kept_for_length(cfg: Any, subset: Subset, training: bool) -> Sequence[int]:
    """Select the utterances whose length the task accepts, and log how many are left out.

    Args:
        cfg: the task's configuration.
        subset: the utterances.
        training: whether this is the training split; the log line is then not a warning.

    Returns:
        indices of the accepted utterances.

    Raises:
        UserError: no utterance has an accepted length.
    """
    bounds = {key: getattr(cfg, key, None) for key in _LENGTHS}
    least, most = bounds.values()
    kept = [
        index
        for index, count in enumerate(subset.samples)
        if (least is None or count >= least) and (most is None or count <= most)
    ]
    limits = " and ".join(f"task.{key}={bound}" for key, bound in bounds.items() if bound is not None)
    if not kept:
        raise UserError(
            f"{subset.manifest} has no utterance within {limits} (they have {min(subset.samples)} to "
            f"{max(subset.samples)} samples): change these keys"
        )
    if left := len(subset.samples) - len(kept):
        level, count = logging.INFO if training else logging.WARNING, len(subset.samples)
        logger.log(level, "%d of %d utterances of %s are left out by %s", left, count, subset.manifest, limits)
    return kept


def check_valid_sets(folder: Path, root: Any) -> None:
    """Check that validation reads every ``valid<number>.tsv``, unless a key leaves some out.

    fairseq's own check offers to combine these manifests, which its audio tasks cannot do.

    Args:
        folder: ``task.data``.
        root: the whole configuration, or the part that is known.

    Raises:
        UserError: ``dataset.valid_subset`` leaves manifests out, and no key allows it.
    """
    given = select(root, "dataset.valid_subset")
    if given is None or select(root, "dataset.disable_validation"):
        return
    combine = bool(select(root, "dataset.combine_valid_subsets"))
    read = ["valid"] if combine else given.split(",")
    others = [path for path in sorted(folder.glob("valid*.tsv")) if re.match(r"valid*[0-9]", path.name)]
    others = [path for path in others if path.stem not in read]
    if not others:
        return
    count = sum(len(read_lines(path)) - 1 for path in others)
    left = f"{count} utterances of {', '.join(map(str, others))} are left out of validation"
    instead = f"dataset.valid_subset='{','.join([*read, *(path.stem for path in others)])}'"
    if combine:
        key = "dataset.combine_valid_subsets=true combines nothing for audio"
        logger.warning("%s, %s: set it to false and %s", key, left, instead)
    elif select(root, "dataset.ignore_unused_valid_subsets"):
        logger.warning("dataset.ignore_unused_valid_subsets=true: %s", left)
    else:
        raise UserError(
            f"dataset.valid_subset={given}: {left}: set {instead}, or dataset.ignore_unused_valid_subsets=true"
        )


def check_batches(dataset: FairseqDataset, manifests: str, root: Any, training: bool) -> None:
    """Warn of utterances that are in no batch.

    fairseq drops a last batch whose size is no multiple of ``dataset.required_batch_size_multiple``
    (8 unless set), and ends validation after ``dataset.max_valid_steps`` batches.

    Args:
        dataset: the data set that fairseq batches.
        manifests: the files that list its utterances, for messages.
        root: the whole configuration, or the part that is known.
        training: whether this is the training split.

    Raises:
        UserError: no batch is left.
    """
    multiple, suffix = select(root, "dataset.required_batch_size_multiple") or 1, "" if training else "_valid"
    steps = None if training else select(root, "dataset.max_valid_steps")
    if multiple == 1 and steps is None:
        return
    dataset.set_epoch(1)  # a set of several corpora draws its utterances by epoch
    with data_utils.numpy_seed(0):  # the order of utterances of one length changes no batch size
        batches = dataset.batch_by_size(
            dataset.ordered_indices(),
            max_tokens=select(root, f"dataset.max_tokens{suffix}"),
            max_sentences=select(root, f"dataset.batch_size{suffix}"),
            required_batch_size_multiple=multiple,
        )
    count, among = len(dataset), f"of {len(dataset)} utterances of {manifests}"
    if not batches:
        raise UserError(
            f"dataset.required_batch_size_multiple={multiple} makes no batch of the {count} utterances of "
            f"{manifests}: set it to 1"
        )
    if left := count - sum(map(len, batches)):
        logger.warning(
            "dataset.required_batch_size_multiple=%d leaves %d %s out of %s: set it to 1",
            multiple,
            left,
            among,
            "the training" if training else "each validation",
        )
    workers = select(root, "distributed_training.distributed_world_size") or 1
    # fairseq stops after batch number `steps`, counted from 0.
    if left := sum(map(len, batches[(steps + 1) * workers :])) if steps is not None else 0:
        logger.warning(
            "dataset.max_valid_steps=%d leaves %d %s out of each validation: set it to null", steps, left, among
        )


def check_data_of_trainings() -> None:
    """Make fairseq's tasks check the data of a training when they build the model ``skd_ctc``.

    Settings are checked before the encoder is read, each split before it is loaded.
    """
    original = FairseqTask.build_model
    if hasattr(original, "checks_data"):
        return

    @functools.wraps(original)
    def build_model(self: FairseqTask, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(cfg, "_name", None) != "skd_ctc" or cfg.get("w2v_args") is not None:
            return original(self, cfg, *args, **kwargs)
        root = root_of(cfg)
        check_settings(self)
        warn_of_other_settings(root)
        model = original(self, cfg, *args, **kwargs)
        check_before_loading(self, model.w2v_encoder.conv_layers, root)
        return model

    build_model.checks_data = True  # type: ignore[attr-defined]
    FairseqTask.build_model = build_model


def check_settings(task: FairseqTask) -> None:
    """Check the settings of a task; only fairseq's two fine-tuning tasks are checked.

    Args:
        task: a task that has not read its dictionary yet.

    Raises:
        UserError: the data folder or the dictionary is missing, or the task is set to pretrain, to
            cut transcripts, or to use a part of the audio.
    """
    if not isinstance(task, HubertPretrainingTask | AudioFinetuningTask):
        return
    cfg = task.cfg
    if OmegaConf.is_config(cfg) and OmegaConf.is_missing(cfg, "data"):
        raise UserError("task.data is not set: give the folder with <split>.tsv and its labels")
    if not getattr(cfg, "fine_tuning", True):
        raise UserError("task.fine_tuning=false is for pretraining: set task.fine_tuning=true")
    if isinstance(task, HubertPretrainingTask) and cfg.label_rate != -1:
        raise UserError(
            f"task.label_rate={cfg.label_rate:g} is for pretraining, it cuts transcripts to {cfg.label_rate:g} units "
            f"per second: set task.label_rate=-1"
        )
    if "subsample" in cfg and cfg.subsample < 1:
        raise UserError(
            f"task.subsample={cfg.subsample} draws a part of the audio but not its transcripts, so fairseq would pair "
            f"audio with wrong transcripts: set it to 1 and write a shorter manifest"
        )
    if not _extensions(cfg):
        raise UserError("task.labels is not set: give the extension of the label files, for example ltr")
    data = Path(cfg.data)
    if not data.is_dir():
        what = "is not a folder: give the folder of the manifests"
        if not data.is_absolute():
            what = f"is not a folder in {Path.cwd()}, where Hydra runs this: give an absolute path"
        raise UserError(f"task.data={data} {what}")
    for extension in _extensions(cfg):
        own = getattr(cfg, "target_dictionary", None)  # a key of audio_finetuning only
        dictionary = (Path(own) if own else _label_folder(cfg)) / f"dict.{extension}.txt"
        read_dictionary(dictionary)


def check_before_loading(task: FairseqTask, layers: Sequence[ConvLayer], root: Any = None) -> None:
    """Make a task check each split before loading it, and batch it alike after a resume.

    Only fairseq's two fine-tuning tasks are changed.

    Args:
        task: its ``load_dataset`` is wrapped.
        layers: the encoder's convolutions.
        root: the whole configuration, or the part that is known.
    """
    if not isinstance(task, HubertPretrainingTask | AudioFinetuningTask):
        return
    check_valid_sets(Path(task.cfg.data), root)
    load = task.load_dataset

    @functools.wraps(load)
    def load_dataset(split: str, *args: Any, **kwargs: Any) -> Any:
        training = split == select(root, "dataset.train_subset") and not _loaded_to_validate(task, split, root)
        names = _manifests(task.cfg, split)
        for name in names:
            check_split(task, name, layers, root, training)
        loaded = load(split, *args, **kwargs)
        if names:
            manifests = ", ".join(str(Path(task.cfg.data) / f"{name}.tsv") for name in names)
            check_batches(task.dataset(split), manifests, root, training)
        if training:
            _keep_order(task.dataset(split), root)
        return loaded

    task.load_dataset = load_dataset


def _keep_order(dataset: Any, root: Any) -> None:
    """Fix the order of a training set, unless a key asks fairseq for new batches in each epoch."""
    seed = select(root, "common.seed")
    anew = ("dataset.update_epoch_batch_itr", "dataset.update_ordered_indices_seed", "task.rebuild_batches")
    if seed is not None and not any(select(root, key) for key in anew):
        fairseq_fixes.keep_order(dataset, seed)


def _loaded_to_validate(task: FairseqTask, split: str, root: Any) -> bool:
    """Whether fairseq loads a split for validation.

    If the split is also trained on, fairseq loads it a second time later.
    """
    validated = str(select(root, "dataset.valid_subset") or "").split(",")
    return split in validated and split not in task.datasets and not select(root, "dataset.disable_validation")


def _manifests(cfg: Any, split: str) -> list[str]:
    """List the manifests of a split: one per corpus (``corpus:name,...``), none if binarized."""
    if "binarized_dataset" in cfg and cfg.binarized_dataset:
        return []
    if "multi_corpus_keys" in cfg and cfg.multi_corpus_keys:
        return [part.rpartition(":")[2].strip() for part in split.split(",")]
    return [split]


def check_split(
    task: FairseqTask, split: str, layers: Sequence[ConvLayer], root: Any = None, training: bool = False
) -> None:
    """Check manifest, labels and up to 100 audio headers of the utterances that the task accepts.

    Args:
        task: one of fairseq's two fine-tuning tasks.
        split: name of the manifest.
        layers: the encoder's convolutions.
        root: the whole configuration, or the part that is known.
        training: whether this is the training split.

    Raises:
        UserError: a file is missing or damaged, see :mod:`fairseq_skd.files.subset`; CTC can learn
            nothing from the labels; the task accepts no utterance; or an utterance is too short for
            the encoder, too long for a batch, or cropped while its transcript is kept.
    """
    cfg = task.cfg
    subset = read_manifest(Path(cfg.data), split, f"split {split} of dataset.train_subset or dataset.valid_subset")
    kept = kept_for_length(cfg, subset, training)
    shortest, suffix = receptive_field(layers), "" if training else "_valid"
    _check_lengths(subset, kept, shortest)
    hubert = isinstance(task, HubertPretrainingTask)
    if hubert and not cfg.pad_audio and select(root, f"dataset.batch_size{suffix}") != 1:
        _check_padding(cfg, subset, kept)
    instead = "set task.max_keep_size={0} to leave them out" if hubert else "take them out of the manifest and labels"
    _check_crops(cfg.max_sample_size, subset, kept, instead)
    key = f"dataset.max_tokens{suffix}"
    _check_fit_in_batch(key, select(root, key), subset, kept, instead)
    metric = "" if training else str(select(root, "checkpoint.best_checkpoint_metric") or "")
    for extension in _extensions(cfg):
        labels, process = _label_folder(cfg) / f"{split}.{extension}", select(root, "criterion.post_process")
        check_labels(labels, subset, kept, task.target_dictionary, layers, process, not hubert, metric)
    spread = kept if len(kept) <= _HEADERS else [kept[place * len(kept) // _HEADERS] for place in range(_HEADERS)]
    check_audio(subset, cfg.sample_rate, shortest, spread)


def _check_lengths(subset: Subset, kept: Sequence[int], shortest: int) -> None:
    """Check that no utterance is shorter than one frame: the convolutions fail on such a batch."""
    short = [index for index in kept if subset.samples[index] < shortest]
    if short:
        raise UserError(
            f"{len(short)} of {len(kept)} utterances of {subset.manifest} are shorter than one frame of the model, "
            f"{shortest} samples, the first is {subset.where(short[0])}: set task.min_sample_size={shortest}"
        )


def _check_padding(cfg: Any, subset: Subset, kept: Sequence[int]) -> None:
    """Check that no batch is cropped; unpadded, fairseq crops audio but not transcripts."""
    shortest = min(subset.samples[index] for index in kept)
    if longer := sum(subset.samples[index] > shortest for index in kept):
        keys = " ".join(f"task.{key}={'null' if cfg[key] is None else str(cfg[key]).lower()}" for key in _CROPPING)
        raise UserError(
            f"{keys} crops each batch to its shortest utterance and keeps the transcripts whole (up to {longer} of "
            f"{len(kept)} utterances of {subset.manifest} would be cropped): set task.pad_audio=true "
            f"task.random_crop=false"
        )


def _check_crops(limit: int | None, subset: Subset, kept: Sequence[int], instead: str) -> None:
    """Check that no utterance exceeds ``max_sample_size``; both tasks crop it even if they pad.

    ``instead`` is the advice how to drop these utterances.
    """
    if limit is not None and (long := [index for index in kept if subset.samples[index] > limit]):
        raise UserError(
            f"task.max_sample_size={limit} crops {len(long)} of {len(kept)} utterances of {subset.manifest}, the first "
            f"is {subset.where(long[0])}, and keeps their transcripts whole: {instead.format(limit)}, or set "
            f"task.max_sample_size=null to train on whole utterances"
        )


def _check_fit_in_batch(key: str, limit: int | None, subset: Subset, kept: Sequence[int], instead: str) -> None:
    """Check that each utterance fits in a batch; otherwise fairseq ends in an assertion."""
    if limit is not None and (long := [index for index in kept if subset.samples[index] > limit]):
        longest = max(long, key=lambda index: subset.samples[index])
        raise UserError(
            f"{key}={limit} samples is too small for {len(long)} of {len(kept)} utterances of {subset.manifest}: "
            f"{instead.format(limit)}, or set {key}={subset.samples[longest]}, the length of the longest, "
            f"{subset.where(longest)}"
        )


def _extensions(cfg: Any) -> list[str]:
    labels = getattr(cfg, "labels", None)
    return [labels] if isinstance(labels, str) else list(labels or [])


def _label_folder(cfg: Any) -> Path:
    return Path(getattr(cfg, "label_dir", None) or cfg.data)
