"""Check the data of a training before fairseq's tasks load it, and count the utterances that they leave out."""

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


def kept_for_length(cfg: Any, subset: Subset, training: bool) -> Sequence[int]:
    """Indices of the utterances whose length a task accepts; the log has the number of the others.

    Args:
        cfg: the task's configuration.
        subset: the utterances.
        training: whether the split is trained on. If so the number is information, else it is a warning.

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
            f"{subset.manifest} has no utterance within {limits}: its utterances have {min(subset.samples)} to "
            f"{max(subset.samples)} samples, change these keys"
        )
    if left := len(subset.samples) - len(kept):
        level, count = logging.INFO if training else logging.WARNING, len(subset.samples)
        logger.log(level, "%d of %d utterances of %s are left out by %s", left, count, subset.manifest, limits)
    return kept


def check_valid_sets(folder: Path, root: Any) -> None:
    """Check that validation reads the manifests ``valid<number>.tsv`` that lie in the folder, or warn of them.

    fairseq refuses to leave them out, and then offers to combine them, which its audio tasks cannot.

    Args:
        folder: ``task.data``.
        root: the whole configuration, or as much of it as there is.

    Raises:
        UserError: ``dataset.valid_subset`` leaves manifests out, and no key says that they are to be left out.
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
        logger.warning("%s: %s, set it to false and %s", key, left, instead)
    elif select(root, "dataset.ignore_unused_valid_subsets"):
        logger.warning("dataset.ignore_unused_valid_subsets=true: %s", left)
    else:
        raise UserError(
            f"dataset.valid_subset={given}: {left}, set {instead}, or dataset.ignore_unused_valid_subsets=true"
        )


def check_batches(dataset: FairseqDataset, manifests: str, root: Any, training: bool) -> None:
    """Warn of the utterances that are in no batch.

    fairseq drops a last batch whose size ``dataset.required_batch_size_multiple`` (8 unless set) does not divide, and
    ends a validation after ``dataset.max_valid_steps`` batches.

    Args:
        dataset: what fairseq makes its batches of.
        manifests: the files that list its utterances, for messages.
        root: the whole configuration, or as much of it as there is.
        training: the split is trained on.

    Raises:
        UserError: no batch is left.
    """
    multiple, suffix = select(root, "dataset.required_batch_size_multiple") or 1, "" if training else "_valid"
    steps = None if training else select(root, "dataset.max_valid_steps")
    if multiple == 1 and steps is None:
        return
    dataset.set_epoch(1)  # several corpora are drawn from by epoch
    with data_utils.numpy_seed(0):  # which utterance of one length comes first changes no batch's size
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
    # fairseq stops after batch number `steps`, counted from 0
    if left := sum(map(len, batches[(steps + 1) * workers :])) if steps is not None else 0:
        logger.warning(
            "dataset.max_valid_steps=%d leaves %d %s out of each validation: set it to null", steps, left, among
        )


_CROPPING = ("pad_audio", "random_crop")
_HEADERS = 100  # enough for a folder of another rate; all of a large corpus would take minutes


def check_data_of_trainings() -> None:
    """Make fairseq's tasks check what a training of model ``skd_ctc`` reads, when they build its model.

    The settings are checked before the encoder is read, each split before it is loaded.
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
    """Check the settings of a task; tasks other than fairseq's two for fine-tuning are left alone.

    Args:
        task: its dictionary has not been asked for yet.

    Raises:
        UserError: the folder of the data or the dictionary is missing, or the task is set to pretrain, to cut
            transcripts, or to draw a part of the audio.
    """
    if not isinstance(task, HubertPretrainingTask | AudioFinetuningTask):
        return
    cfg = task.cfg
    if OmegaConf.is_config(cfg) and OmegaConf.is_missing(cfg, "data"):
        raise UserError("task.data is not set: give the folder of <split>.tsv and its labels")
    if not getattr(cfg, "fine_tuning", True):
        raise UserError("task.fine_tuning=false is for pretraining: set task.fine_tuning=true")
    if isinstance(task, HubertPretrainingTask) and cfg.label_rate != -1:
        raise UserError(
            f"task.label_rate={cfg.label_rate:g} is for pretraining, it cuts transcripts to so many units per second: "
            f"set task.label_rate=-1"
        )
    if "subsample" in cfg and cfg.subsample < 1:
        raise UserError(
            f"task.subsample={cfg.subsample} draws audio without its transcripts, fairseq would take other lines for "
            f"them: leave it at 1 and make a shorter manifest"
        )
    if not _extensions(cfg):
        raise UserError("task.labels is not set: give the extension of the label files, such as ltr")
    data = Path(cfg.data)
    if not data.is_dir():
        where = "" if data.is_absolute() else f" below {Path.cwd()}, where Hydra runs this: give an absolute path"
        raise UserError(f"task.data={data} is not a folder{where}")
    for extension in _extensions(cfg):
        own = getattr(cfg, "target_dictionary", None)  # audio_finetuning can have it elsewhere
        dictionary = (Path(own) if own else _label_folder(cfg)) / f"dict.{extension}.txt"
        read_dictionary(dictionary)


def check_before_loading(task: FairseqTask, layers: Sequence[ConvLayer], root: Any = None) -> None:
    """Make a task check each split before it loads the split, and make the same batches after a resume.

    Tasks other than fairseq's two for fine-tuning are left alone.

    Args:
        task: its ``load_dataset`` is wrapped.
        layers: the encoder's convolutions.
        root: the whole configuration, or as much of it as there is.
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
    """Give a training set its order, unless fairseq is asked for new batches in each epoch: those follow the epoch."""
    seed = select(root, "common.seed")
    anew = ("dataset.update_epoch_batch_itr", "dataset.update_ordered_indices_seed", "task.rebuild_batches")
    if seed is not None and not any(select(root, key) for key in anew):
        fairseq_fixes.keep_order(dataset, seed)


def _loaded_to_validate(task: FairseqTask, split: str, root: Any) -> bool:
    """Whether a split is loaded for validation: fairseq loads one that is trained on as well a second time."""
    validated = str(select(root, "dataset.valid_subset") or "").split(",")
    return split in validated and split not in task.datasets and not select(root, "dataset.disable_validation")


def _manifests(cfg: Any, split: str) -> list[str]:
    """Names of the manifests of a split: one per corpus (``corpus:name,...``), none of binarised data."""
    if "binarized_dataset" in cfg and cfg.binarized_dataset:
        return []
    if "multi_corpus_keys" in cfg and cfg.multi_corpus_keys:
        return [part.rpartition(":")[2].strip() for part in split.split(",")]
    return [split]


def check_split(
    task: FairseqTask, split: str, layers: Sequence[ConvLayer], root: Any = None, training: bool = False
) -> None:
    """Check manifest, labels and some audio headers of a split, as far as the task takes its utterances.

    Args:
        task: one of fairseq's two for fine-tuning.
        split: name of the manifest.
        layers: the encoder's convolutions.
        root: the whole configuration, or as much of it as there is.
        training: whether the split is trained on.

    Raises:
        UserError: a file is missing or damaged, see :mod:`fairseq_skd.files.subset`; CTC can learn nothing of the
            labels; the task accepts no utterance; or an utterance is too short for the encoder, too long for a batch,
            or cropped while its transcript is kept.
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
    _check_batches(f"dataset.max_tokens{suffix}", select(root, f"dataset.max_tokens{suffix}"), subset, kept, instead)
    for extension in _extensions(cfg):
        labels, process = _label_folder(cfg) / f"{split}.{extension}", select(root, "criterion.post_process")
        check_labels(labels, subset, kept, task.target_dictionary, layers, process, carriage_returns=not hubert)
    spread = kept if len(kept) <= _HEADERS else [kept[place * len(kept) // _HEADERS] for place in range(_HEADERS)]
    check_audio(subset, cfg.sample_rate, shortest, spread)


def _check_lengths(subset: Subset, kept: Sequence[int], shortest: int) -> None:
    """The convolutions fail on a batch of utterances that are all shorter than one frame."""
    short = [index for index in kept if subset.samples[index] < shortest]
    if short:
        raise UserError(
            f"{len(short)} of {len(kept)} utterances of {subset.manifest} are shorter than {shortest} samples, one "
            f"frame of the model: set task.min_sample_size={shortest}, the first is {subset.where(short[0])}"
        )


def _check_padding(cfg: Any, subset: Subset, kept: Sequence[int]) -> None:
    """Without padding, fairseq crops a batch to its shortest utterance, but not the transcripts."""
    shortest = min(subset.samples[index] for index in kept)
    if longer := sum(subset.samples[index] > shortest for index in kept):
        keys = " ".join(f"task.{key}={'null' if cfg[key] is None else str(cfg[key]).lower()}" for key in _CROPPING)
        raise UserError(
            f"{keys} crops each batch to its shortest utterance and keeps the transcripts whole: set "
            f"task.pad_audio=true task.random_crop=false (up to {longer} of {len(kept)} utterances of "
            f"{subset.manifest} would be cropped)"
        )


def _check_crops(limit: int | None, subset: Subset, kept: Sequence[int], instead: str) -> None:
    """Both tasks crop utterances above ``max_sample_size``, even where they pad; ``instead`` says how to drop them."""
    if limit is not None and (long := [index for index in kept if subset.samples[index] > limit]):
        raise UserError(
            f"task.max_sample_size={limit} crops {len(long)} of {len(kept)} utterances of {subset.manifest} and keeps "
            f"their transcripts whole: {instead.format(limit)}, or set task.max_sample_size=null to take them whole; "
            f"the first is {subset.where(long[0])}"
        )


def _check_batches(key: str, limit: int | None, subset: Subset, kept: Sequence[int], instead: str) -> None:
    """fairseq asserts that each utterance fits a batch, in validation only after the first epoch."""
    if limit is not None and (long := [index for index in kept if subset.samples[index] > limit]):
        longest = max(long, key=lambda index: subset.samples[index])
        raise UserError(
            f"{key}={limit} samples is less than {len(long)} of {len(kept)} utterances of {subset.manifest} have: "
            f"{instead.format(limit)}, or set {key}={subset.samples[longest]} for the longest, "
            f"{subset.where(longest)}"
        )


def _extensions(cfg: Any) -> list[str]:
    labels = getattr(cfg, "labels", None)
    return [labels] if isinstance(labels, str) else list(labels or [])


def _label_folder(cfg: Any) -> Path:
    return Path(getattr(cfg, "label_dir", None) or cfg.data)
