"""The task to decode a fine-tuned checkpoint with, and the size of what is decoded."""

import dataclasses
from pathlib import Path
from typing import Any

from fairseq import tasks
from fairseq.data import Dictionary

from fairseq_skd.decoding.settings import TaskSettings
from fairseq_skd.errors import UserError, shown
from fairseq_skd.models.skd_ctc import SkdCtc
from fairseq_skd.models.trained import TrainedModel, config_tree

TASKS = ("hubert_pretraining", "audio_finetuning")
# Training may crop, drop or sample utterances; decoding takes every utterance as it is. Unknown keys are left out.
_WHOLE_UTTERANCES = {
    "max_keep_size": None,
    "max_sample_size": None,
    "min_sample_size": None,
    "num_batch_buckets": 0,
    "subsample": 1.0,
    "precompute_mask_config": None,
    "binarized_dataset": False,
    "multi_corpus_keys": None,
    "target_dictionary": None,
    "label_dir": None,
}
_HUBERT_ONLY = {"pad_audio": True, "random_crop": False}


def task_config(trained: TrainedModel, settings: TaskSettings) -> dict[str, Any]:
    """The task of the checkpoint, with the settings that are not null and every utterance taken whole.

    Args:
        trained: the checkpoint.
        settings: ``task`` of the decoding config, paths absolute.

    Raises:
        UserError: a task that this command does not know, a key that it lacks, or several labels.
    """
    config = dict(trained.config["task"])
    name = config.get("_name")
    if name not in TASKS:
        raise UserError(f"{trained.path} was trained with task {shown(name)}, this command knows {' and '.join(TASKS)}")
    config.setdefault("sample_rate", trained.encoder.sample_rate)
    config.setdefault("normalize", trained.encoder.normalize)
    for key in ("normalize", "sample_rate"):
        if config[key] != getattr(trained.encoder, key):
            raise UserError(
                f"{trained.path} is damaged: its task.{key}={shown(config[key])} is not {key} of its encoder, "
                f"{getattr(trained.encoder, key)}"
            )
    hubert = name == "hubert_pretraining"
    if settings.label_dir is not None and not hubert:
        raise UserError(f"task.label_dir is no key of {name}: put labels and dictionary into task.data")
    config.update({**_WHOLE_UTTERANCES, **(_HUBERT_ONLY if hubert else {})})
    config["data"] = settings.data
    if hubert:
        config["label_dir"] = settings.label_dir
    label = settings.labels if settings.labels is not None else config.get("labels")
    labels = list(label) if isinstance(label, list | tuple) else [label]
    if len(labels) != 1 or type(labels[0]) is not str or Path(labels[0]).name != labels[0]:
        where = f"{trained.path}: " if settings.labels is None else ""
        raise UserError(f"{where}task.labels={shown(labels)} has to name one extension, such as ltr")
    config["labels"] = labels if hubert else labels[0]
    known = {field.name for field in dataclasses.fields(tasks.TASK_DATACLASS_REGISTRY[name])} | {"_name"}
    return {key: value for key, value in config.items() if key in known}


def build_task(trained: TrainedModel, config: dict[str, Any], dictionary: Dictionary) -> tasks.FairseqTask:
    """The task object of fairseq, with its dictionary."""
    root = config_tree(trained, task=config)
    try:
        task = tasks.setup_task(root.task)
    except Exception as error:  # omegaconf, and whatever fairseq's tasks do with values of other types
        reason = shown(error, 200)
        raise UserError(f"{trained.path}: its task {config['_name']} cannot be set up: {reason}") from error
    task.state.merge_state_dict({"target_dictionary": dictionary})
    return task


def count_parameters(model: SkdCtc, exit_layer: int, depth: int) -> int:
    """Parameters that recognition at an exit uses.

    The mask embedding, which only training uses, and the heads of other exits are not counted.
    """
    unused = tuple(f"student_heads.{layer}." for layer in model.student_layers if exit_layer == depth)
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not name.endswith("mask_emb") and not name.startswith(unused)
    )
