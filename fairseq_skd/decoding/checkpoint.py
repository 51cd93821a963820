"""A fine-tuned ``skd_ctc`` checkpoint: what it was trained as, the task to decode with, and the model at an exit."""

import dataclasses
import os
import re
from typing import Any

from fairseq import tasks
from fairseq.data import Dictionary
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from fairseq_skd.decoding.settings import TaskSettings
from fairseq_skd.encoders.convolutions import ConvLayer, parse_conv_layers
from fairseq_skd.encoders.loading import load_checkpoint
from fairseq_skd.encoders.pretrained import PretrainedEncoder
from fairseq_skd.errors import UserError
from fairseq_skd.models.skd_ctc import SkdCtc

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
_HEAD_BIAS = re.compile(r"(w2v_encoder|student_heads\.\d+)\.proj\.bias")
_AS_TRAINED = ("normalize", "sample_rate")


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """What decoding needs of a checkpoint.

    Attributes:
        path: the file.
        config: the training configuration, plain.
        weights: parameters by name, until :func:`build_model` has taken them.
        symbols: V, the outputs of a CTC head, blank included.
        dictionary: of the training labels; None if the checkpoint does not hold it.
        encoder: kind and architecture.
    """

    path: str
    config: dict[str, Any]
    weights: dict[str, Tensor]
    symbols: int
    dictionary: Dictionary | None
    encoder: PretrainedEncoder

    @property
    def depth(self) -> int:
        """L."""
        return self.encoder.depth

    @property
    def students(self) -> list[int]:
        """Layer counts of the students."""
        return list(self.config["model"].get("student_layers") or [])

    @property
    def shortest_audio(self) -> int:
        """Samples that the feature extractor needs for one frame."""
        return receptive_field(parse_conv_layers(self.encoder.architecture["conv_feature_layers"]))


def receptive_field(layers: list[ConvLayer]) -> int:
    """Samples behind one frame of a stack of convolutions."""
    samples = 1
    for _, kernel, stride in reversed(layers):
        samples = (samples - 1) * stride + kernel
    return samples


def open_trained(path: str | os.PathLike[str]) -> TrainedModel:
    """Open a checkpoint that ``fairseq-hydra-train`` made with model ``skd_ctc``.

    Raises:
        UserError: not readable (see :func:`~fairseq_skd.encoders.loading.load_checkpoint`), or another model.
    """
    state = load_checkpoint(path)
    config = state.get("cfg") or {"model": {"_name": getattr(state["args"], "arch", None)}}
    name = (config.get("model") or {}).get("_name") or "unnamed"
    if name != "skd_ctc":
        raise UserError(
            f"common_eval.path={path} is a checkpoint of model {name}, this command decodes skd_ctc: fine-tune from it "
            f"with model.w2v_path (pretrained) or checkpoint.finetune_from_model (fine-tuned)"
        )
    heads = [weight.size(0) for key, weight in state["model"].items() if _HEAD_BIAS.fullmatch(key)]
    if not isinstance(config["model"].get("w2v_args"), dict) or not heads:
        raise UserError(f"common_eval.path={path} lacks the encoder's configuration or a CTC head: it is damaged")
    encoder = PretrainedEncoder.from_w2v_args(config["model"]["w2v_args"], source=f"common_eval.path={path}")
    dictionary = (state.get("task_state") or {}).get("target_dictionary")
    return TrainedModel(str(path), config, state["model"], heads[0], dictionary, encoder)


def task_config(trained: TrainedModel, settings: TaskSettings) -> dict[str, Any]:
    """The task of the checkpoint, with the settings that are not null and every utterance taken whole.

    Args:
        trained: the checkpoint.
        settings: ``task`` of the decoding config, paths absolute.

    Raises:
        UserError: another task, another normalisation or sampling rate than in training, or a key that it lacks.
    """
    config = dict(trained.config.get("task") or {})
    name = config.get("_name")
    if name not in TASKS:
        raise UserError(f"{trained.path} was trained with task {name}, this command knows {' and '.join(TASKS)}")
    asked = settings._name
    if asked not in (None, name):
        raise UserError(f"task._name={asked} differs from {name}, the task of {trained.path}: leave it null")
    config.setdefault("sample_rate", trained.encoder.sample_rate)
    config.setdefault("normalize", trained.encoder.normalize)
    for key in _AS_TRAINED:
        value = getattr(settings, key)
        if value is not None and value != config[key]:
            raise UserError(
                f"task.{key}={str(value).lower()} differs from {str(config[key]).lower()} in the training of "
                f"{trained.path}: leave it null"
            )
    hubert = name == "hubert_pretraining"
    if settings.label_dir is not None and not hubert:
        raise UserError(f"task.label_dir is no key of {name}: put labels and dictionary into task.data")
    config.update({**_WHOLE_UTTERANCES, **(_HUBERT_ONLY if hubert else {})})
    config["data"] = settings.data
    if hubert:
        config["label_dir"] = settings.label_dir
    label = settings.labels if settings.labels is not None else config.get("labels")
    labels = [label] if isinstance(label, str) else list(label or [])
    if len(labels) != 1:
        raise UserError(f"task.labels={labels} has to name one extension, such as ltr")
    config["labels"] = labels if hubert else labels[0]
    known = {field.name for field in dataclasses.fields(tasks.TASK_DATACLASS_REGISTRY[name])} | {"_name"}
    return {key: value for key, value in config.items() if key in known}


def build_task(trained: TrainedModel, config: dict[str, Any], dictionary: Dictionary) -> tasks.FairseqTask:
    """The task object of fairseq, with its dictionary."""
    root = _config_tree(trained, task=config)
    task = tasks.setup_task(root.task)
    task.state.merge_state_dict({"target_dictionary": dictionary})
    return task


def build_model(trained: TrainedModel, task: tasks.FairseqTask, exit_layer: int) -> SkdCtc:
    """The model up to an exit, in evaluation mode, with the checkpoint's weights.

    Raises:
        UserError: the weights are not those that the configuration asks for.
    """
    decoded = 0 if exit_layer == trained.depth else exit_layer
    config = _config_tree(trained, model={**trained.config["model"], "decode_layer": decoded})
    model = task.build_model(config.model, from_checkpoint=True)
    try:
        model.load_state_dict(dict(trained.weights), strict=True, model_cfg=config.model)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{trained.path}: the weights do not fit the configuration saved with them: {reason}"
        ) from error
    trained.weights.clear()  # those above the exit would stay in memory
    return model.eval()


def count_parameters(model: SkdCtc, exit_layer: int, depth: int) -> int:
    """Parameters that recognition at an exit uses.

    The heads of other exits and the mask embedding, which only training uses, are not counted.
    """
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not name.endswith("mask_emb") and not (exit_layer == depth and name.startswith("student_heads."))
    )


def _config_tree(trained: TrainedModel, **replaced: dict[str, Any]) -> DictConfig:
    """The whole training configuration, because defaults of fairseq's interpolate from one part into others."""
    return OmegaConf.create({**trained.config, **replaced})
