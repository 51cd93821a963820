"""The keys of ``python -m fairseq_skd.infer``, under the names of fairseq's ``new/infer.py``: meaning and range."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairseq_skd.corpora.units import POST_PROCESSES
from fairseq_skd.errors import UserError
from fairseq_skd.scoring.beam import BeamOptions

MISSING = "???"
TYPES = ("viterbi", "kenlm", "lexfree")


def _key(default: Any, meaning: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class TaskSettings:
    """What is read, and how. Null means: as the checkpoint was trained."""

    _name: str | None = _key(None, "hubert_pretraining or audio_finetuning; null: the checkpoint's")
    data: str = _key(MISSING, "folder with <gen_subset>.tsv, the labels and the dictionary")
    label_dir: str | None = _key(None, "folder of labels and dictionary, if another (hubert_pretraining only)")
    labels: str | list[str] | None = dataclasses.field(
        default=None, metadata={"help": "extension of the label file, e.g. ltr; null: the checkpoint's"}
    )
    sample_rate: int | None = _key(None, "in Hz; null: the checkpoint's, and no other is taken")
    normalize: bool | None = _key(None, "zero mean, unit variance; null: the checkpoint's, and no other is taken")
    pad_audio: bool = _key(True, "has to be true: false would crop a batch to its shortest utterance")
    random_crop: bool = _key(False, "has to be false")


@dataclass(frozen=True)
class CommonSettings:
    """Where and in which precision the model runs."""

    user_dir: str | None = _key(None, "may be null; else this package's own folder")
    seed: int = _key(1, "seed of torch; greedy decoding draws nothing")
    cpu: bool = _key(False, "stay on the CPU where CUDA is available")
    fp16: bool = _key(False, "half precision, on CUDA")
    bf16: bool = _key(False, "bfloat16")


@dataclass(frozen=True)
class CommonEvalSettings:
    """Which model, and what becomes of its units."""

    path: str = _key(MISSING, "the fine-tuned checkpoint")
    post_process: str | None = _key(
        None, f"from units to words: {', '.join(POST_PROCESSES[:-1])}; null: the checkpoint's"
    )
    quiet: bool = _key(True, "false: also print every hypothesis with its reference")
    model_overrides: str | dict[str, Any] = dataclasses.field(
        default="{}", metadata={"help": "\"{'decode_layer': 6}\" says the same as decoding.layer=6"}
    )
    results_path: str | None = _key(None, "the same as decoding.results_path")


@dataclass(frozen=True)
class DatasetSettings:
    """Which subset, in which batches."""

    gen_subset: str = _key("test", "<gen_subset>.tsv is decoded")
    max_tokens: int | None = _key(1600000, "samples in a batch, padding included; a longer utterance goes alone")
    batch_size: int | None = _key(None, "utterances in a batch")
    num_workers: int = _key(1, "processes that load audio; 0: none")
    skip_invalid_size_inputs_valid_test: bool = _key(False, "has to be false: no utterance is left out")


@dataclass(frozen=True)
class DistributedSettings:
    """Decoding runs in one process."""

    distributed_world_size: int = _key(1, "has to be 1")


@dataclass(frozen=True)
class DecodingSettings:
    """How the text is found, and where it goes."""

    type: str = _key(
        "viterbi",
        "viterbi: the best symbol of each frame, repeats merged, blanks dropped; kenlm: beam search over the words of "
        "a lexicon, with an n-gram model of words; lexfree: over units, with an n-gram model of units or none",
    )
    layer: int | None = _key(None, "exit to decode: l for the student of l layers; 0 or null for the full model")
    results_path: str | None = _key(None, "folder of the results; null: decode/<gen_subset>-layer<l>")
    unique_wer_file: bool = _key(False, "true: summary.<hash of the decoding keys>.json instead of summary.json")
    lexicon: str | None = _key(None, "kenlm: file of lines WORD<TAB>unit unit ...; with letters each ends in |")
    lmpath: str | None = _key(None, "kenlm, lexfree: ARPA (plain or gzip) or KenLM's binary format")
    beam: int = _key(50, "hypotheses kept after each frame")
    beamsizetoken: int | None = _key(None, "best units of a frame that are tried; null: all")
    beamthreshold: float = _key(50.0, "hypotheses that score this much less than the best are dropped")
    lmweight: float = _key(2.0, "weight of the language model's log10 probability")
    wordscore: float = _key(-1.0, "kenlm: added for each word")
    unkweight: float = _key(-math.inf, "kenlm: added for a word outside the lexicon; -inf: there are none")
    silweight: float = _key(0.0, "added for each frame of the word boundary |")
    blankweight: float = _key(0.0, "added to the blank's logit; below 0 where a model leaves out too much")
    logadd: bool = _key(False, "add up the alignments of a text instead of taking the best one")

    @property
    def options(self) -> BeamOptions:
        """Width and weights of a beam search."""
        return BeamOptions(**{field.name: getattr(self, field.name) for field in dataclasses.fields(BeamOptions)})


@dataclass(frozen=True)
class Settings:
    """The whole configuration, checked."""

    task: TaskSettings = TaskSettings()
    common: CommonSettings = CommonSettings()
    common_eval: CommonEvalSettings = CommonEvalSettings()
    dataset: DatasetSettings = DatasetSettings()
    distributed_training: DistributedSettings = DistributedSettings()
    decoding: DecodingSettings = DecodingSettings()

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Settings":
        """Check a composed configuration.

        Raises:
            UserError: an unknown section or key, a value of the wrong type or out of range, a required one missing.
        """
        classes = typing.get_type_hints(cls)
        for section in config:
            if section not in classes:
                raise UserError(f"{section} is no section of a decoding config, these are: {', '.join(classes)}")
        settings = cls(**{name: _read_section(name, classes[name], config.get(name)) for name in classes})
        _check_values(settings)
        return settings


def describe_keys() -> str:
    """All keys with their default and meaning, for ``--help``."""
    lines = []
    for section, section_class in typing.get_type_hints(Settings).items():
        for field in dataclasses.fields(section_class):
            default = "required" if field.default == MISSING else _as_yaml(field.default)
            lines.append(f"  {section}.{field.name} ({default})\n      {field.metadata['help']}")
    return "\n".join(lines)


def _as_yaml(value: Any) -> str:
    if value is None:
        return "null"
    if value == -math.inf:
        return "-inf"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_section(section: str, section_class: Any, values: Any) -> Any:
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise UserError(f"{section}={values} replaces a whole section by one value: set its keys, {section}.<key>=...")
    kinds = typing.get_type_hints(section_class)
    for key in values:
        if key not in kinds:
            raise UserError(f"{section}.{key} is no key of a decoding config, {section} has: {', '.join(kinds)}")
    return section_class(**{key: _read_value(f"{section}.{key}", kinds[key], values[key]) for key in values})


def _read_value(key: str, kind: Any, value: Any) -> Any:
    allowed = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for one in allowed:
        plain = typing.get_origin(one) or one
        if type(value) is plain and (plain is not list or all(type(item) is str for item in value)):
            return value
    if float in allowed and type(value) is int:
        return float(value)
    if str in allowed and type(value) is int:  # YAML and Hydra read the name 2019 as a number
        return str(value)
    names: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        types.NoneType: "null",
    }
    names |= {list[str]: "a list of texts", dict[str, Any]: "a dict"}
    wanted = " or ".join(names[one] for one in allowed)
    raise UserError(f"{key}={_as_yaml(value)} cannot be used, it takes {wanted}")


def _check_values(settings: Settings) -> None:
    task, dataset, decoding = settings.task, settings.dataset, settings.decoding
    example = {"task.data": "the folder with the manifest", "common_eval.path": "a fine-tuned checkpoint"}
    for key, value in (("task.data", task.data), ("common_eval.path", settings.common_eval.path)):
        if value in (MISSING, ""):
            raise UserError(f"{key} is not set: give {example[key]}, {key}=...")
    lowest = (
        ("dataset.max_tokens", dataset.max_tokens, 1),
        ("dataset.batch_size", dataset.batch_size, 1),
        ("dataset.num_workers", dataset.num_workers, 0),
        ("decoding.layer", decoding.layer, 0),
    )
    for key, number, least in lowest:
        if number is not None and number < least:
            raise UserError(f"{key}={number} is out of range, it is at least {least}")
    fixed = (
        ("task.pad_audio", task.pad_audio, True, "the audio of a batch would be cropped to its shortest utterance"),
        ("task.random_crop", task.random_crop, False, "every run would decode other pieces of the audio"),
        (
            "dataset.skip_invalid_size_inputs_valid_test",
            dataset.skip_invalid_size_inputs_valid_test,
            False,
            "utterances would be missing from the error rates",
        ),
        (
            "distributed_training.distributed_world_size",
            settings.distributed_training.distributed_world_size,
            1,
            "decoding runs in one process",
        ),
    )
    for key, found, wanted, reason in fixed:
        if found != wanted:
            raise UserError(f"{key}={_as_yaml(found)} is refused, {reason}: leave it {_as_yaml(wanted)}")
    _check_search(decoding)
    post_process = settings.common_eval.post_process
    if post_process is not None and post_process not in POST_PROCESSES:
        raise UserError(f"common_eval.post_process={post_process} is not known, there are: {', '.join(POST_PROCESSES)}")
    if settings.common.fp16 and settings.common.bf16:
        raise UserError("common.fp16 and common.bf16 are both true: choose one")


def _check_search(decoding: DecodingSettings) -> None:
    kind = decoding.type
    if kind not in TYPES:
        raise UserError(f"decoding.type={kind} is not known, there are: {', '.join(TYPES)}")
    decoding.options.check("decoding.")
    if not math.isfinite(decoding.blankweight):
        raise UserError(f"decoding.blankweight={decoding.blankweight} is not a finite number")
    given = {"lexicon": decoding.lexicon not in (None, ""), "lmpath": decoding.lmpath not in (None, "")}
    if kind == "kenlm":
        for key, is_given in given.items():
            if not is_given:
                raise UserError(f"decoding.type=kenlm needs decoding.{key} (without a lexicon: decoding.type=lexfree)")
    unused = {"viterbi": ("lexicon", "lmpath"), "kenlm": (), "lexfree": ("lexicon",)}[kind]
    for key in unused:
        if given[key]:
            raise UserError(f"decoding.{key} is not used by decoding.type={kind}: decoding.type=kenlm is what takes it")
