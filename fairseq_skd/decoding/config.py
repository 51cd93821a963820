"""The keys of ``python -m fairseq_skd.infer``, named as in fairseq's ``new/infer.py``."""

import dataclasses
import math
from dataclasses import dataclass

from fairseq_skd.errors import UserError
from fairseq_skd.files.units import POST_PROCESSES
from fairseq_skd.search.beam import BeamOptions
from fairseq_skd.search.phrases import check_scale
from fairseq_skd.typed_settings import MISSING, Sections, key

TYPES = ("viterbi", "kenlm", "lexfree")


@dataclass(frozen=True)
class TaskSettings:
    """Where manifest and labels are. Other settings of the task come from the checkpoint."""

    data: str = key(MISSING, "folder with <gen_subset>.tsv, the labels and the dictionary")
    label_dir: str | None = key(None, "folder with labels and dictionary, if not task.data")
    labels: str | list[str] | None = key(None, "extension of the label file, e.g. ltr; null: as in the checkpoint")


@dataclass(frozen=True)
class CommonSettings:
    """Device, precision and seed."""

    seed: int = key(1, "seed of the bootstrap in fairseq_skd.align; decoding is not random", least=0)
    cpu: bool = key(False, "run on the CPU even if CUDA is available")
    fp16: bool = key(False, "half precision, CUDA only")
    bf16: bool = key(False, "bfloat16")

    def __post_init__(self) -> None:
        if self.fp16 and self.bf16:
            raise UserError("common.fp16 and common.bf16 are both true: set one to false")


@dataclass(frozen=True)
class CommonEvalSettings:
    """The checkpoint, how its units become words, and where the results go."""

    path: str = key(MISSING, "the fine-tuned checkpoint")
    post_process: str | None = key(
        None,
        f"how units become words: {', '.join(POST_PROCESSES[:-1])}; null: as in the checkpoint",
        among=POST_PROCESSES,
    )
    quiet: bool = key(True, "false: also print every hypothesis with its reference")
    results_path: str | None = key(None, "folder of the results; null: decode/<gen_subset>-layer<l>")


@dataclass(frozen=True)
class DatasetSettings:
    """The subset and the size of its batches."""

    gen_subset: str = key("test", "name of the manifest to decode, without .tsv")
    max_tokens: int | None = key(
        1600000, "samples per batch, padding included; a longer utterance is its own batch", least=1
    )
    batch_size: int | None = key(None, "most utterances per batch; null: no limit", least=1)
    num_workers: int = key(1, "processes that load audio; 0: load in the main process", least=0)


@dataclass(frozen=True)
class DecodingSettings:
    """The exit and the search."""

    type: str = key(
        "viterbi",
        "viterbi: the best symbol of each frame, repeats merged, blanks dropped; kenlm: beam search with a lexicon and "
        "a word n-gram model; lexfree: beam search over units, with a unit n-gram model or without one",
        among=TYPES,
    )
    layer: int | None = key(None, "exit to decode: l for the student of l layers; 0 or null for the full model", 0)
    lexicon: str | None = key(None, "kenlm: file of lines WORD<TAB>unit unit ...; spellings in letters end in |")
    lmpath: str | None = key(None, "kenlm, lexfree: language model, ARPA (plain or gzip) or KenLM's binary format")
    beam: int = key(50, "hypotheses kept after each frame")
    beamsizetoken: int | None = key(
        None, "units tried per frame, the best ones; null: all, but 16 if lexfree has phrases"
    )
    beamthreshold: float = key(50.0, "drop hypotheses that score this much below the best")
    lmweight: float = key(2.0, "weight of the language model's log10 probability")
    wordscore: float = key(-1.0, "kenlm: added for each word")
    unkweight: float = key(-math.inf, "kenlm: added for a word outside the lexicon; -inf: no such words")
    silweight: float = key(0.0, "added for each frame of the word boundary |")
    phrases: str | None = key(
        None, "kenlm, lexfree: words and phrases to prefer (hotwords), lines PHRASE or PHRASE<TAB>WEIGHT"
    )
    phraseweight: float = key(1.0, "factor of the weights in decoding.phrases; 1 adds one nat per character")
    blankweight: float = key(0.0, "added to the logit of blank; negative if a model outputs too little")
    logadd: bool = key(False, "sum the alignments of a text instead of taking the best one")
    times: bool = key(False, "write hypo.ctm: start, duration and confidence of each word")

    @property
    def options(self) -> BeamOptions:
        """Width and weights of the beam search."""
        return BeamOptions(**{field.name: getattr(self, field.name) for field in dataclasses.fields(BeamOptions)})

    def __post_init__(self) -> None:
        self.options.check("decoding.")
        if not math.isfinite(self.blankweight):
            raise UserError(f"decoding.blankweight={self.blankweight} is out of range: give a finite number")
        check_scale("decoding.phraseweight=", self.phraseweight)
        if self.phrases and self.type == "viterbi":
            raise UserError(
                f"decoding.phrases={self.phrases} is not used by decoding.type=viterbi: set decoding.type=lexfree, or "
                f"delete it"
            )
        for name, value in (("lexicon", self.lexicon), ("lmpath", self.lmpath)):
            if self.type == "kenlm" and not value:
                raise UserError(
                    f"decoding.type=kenlm needs decoding.{name}: set it, or decoding.type=lexfree to search without a "
                    f"lexicon"
                )
            if value and (self.type == "viterbi" or (self.type == "lexfree" and name == "lexicon")):
                raise UserError(
                    f"decoding.{name}={value} is not used by decoding.type={self.type}: delete it, or set "
                    f"decoding.type=kenlm"
                )


@dataclass(frozen=True)
class Settings(Sections):
    """The whole configuration; :meth:`read` checks it."""

    task: TaskSettings = TaskSettings()
    common: CommonSettings = CommonSettings()
    common_eval: CommonEvalSettings = CommonEvalSettings()
    dataset: DatasetSettings = DatasetSettings()
    decoding: DecodingSettings = DecodingSettings()
