"""The keys of ``python -m fairseq_skd.infer``, under the names of fairseq's ``new/infer.py``: meaning and range."""

import dataclasses
import math
from dataclasses import dataclass

from fairseq_skd.errors import UserError
from fairseq_skd.files.units import POST_PROCESSES
from fairseq_skd.search.beam import BeamOptions
from fairseq_skd.typed_settings import MISSING, Sections, key

TYPES = ("viterbi", "kenlm", "lexfree")


@dataclass(frozen=True)
class TaskSettings:
    """What is read. The rest of the task is the checkpoint's."""

    data: str = key(MISSING, "folder with <gen_subset>.tsv, the labels and the dictionary")
    label_dir: str | None = key(None, "folder of labels and dictionary, if another")
    labels: str | list[str] | None = key(None, "extension of the label file, e.g. ltr; null: the checkpoint's")


@dataclass(frozen=True)
class CommonSettings:
    """Where and in which precision the model runs."""

    seed: int = key(1, "of the bootstrap in fairseq_skd.align; decoding draws nothing", least=0)
    cpu: bool = key(False, "stay on the CPU where CUDA is available")
    fp16: bool = key(False, "half precision, on CUDA")
    bf16: bool = key(False, "bfloat16")

    def __post_init__(self) -> None:
        if self.fp16 and self.bf16:
            raise UserError("common.fp16 and common.bf16 are both true: choose one")


@dataclass(frozen=True)
class CommonEvalSettings:
    """Which model, what becomes of its units, and where the results go."""

    path: str = key(MISSING, "the fine-tuned checkpoint")
    post_process: str | None = key(
        None,
        f"from units to words: {', '.join(POST_PROCESSES[:-1])}; null: the checkpoint's",
        among=POST_PROCESSES,
    )
    quiet: bool = key(True, "false: also print every hypothesis with its reference")
    results_path: str | None = key(None, "folder of the results; null: decode/<gen_subset>-layer<l>")


@dataclass(frozen=True)
class DatasetSettings:
    """Which subset, in which batches."""

    gen_subset: str = key("test", "<gen_subset>.tsv is read")
    max_tokens: int | None = key(
        1600000, "samples in a batch, padding included; a longer utterance goes alone", least=1
    )
    batch_size: int | None = key(None, "utterances in a batch", least=1)
    num_workers: int = key(1, "processes that load audio; 0: none", least=0)


@dataclass(frozen=True)
class DecodingSettings:
    """How the text is found."""

    type: str = key(
        "viterbi",
        "viterbi: the best symbol of each frame, repeats merged, blanks dropped; kenlm: beam search over the words of "
        "a lexicon, with an n-gram model of words; lexfree: over units, with an n-gram model of units or none",
        among=TYPES,
    )
    layer: int | None = key(None, "exit to decode: l for the student of l layers; 0 or null for the full model", 0)
    lexicon: str | None = key(None, "kenlm: file of lines WORD<TAB>unit unit ...; with letters each ends in |")
    lmpath: str | None = key(None, "kenlm, lexfree: ARPA (plain or gzip) or KenLM's binary format")
    beam: int = key(50, "hypotheses kept after each frame")
    beamsizetoken: int | None = key(None, "best units of a frame that are tried; null: all")
    beamthreshold: float = key(50.0, "hypotheses that score this much less than the best are dropped")
    lmweight: float = key(2.0, "weight of the language model's log10 probability")
    wordscore: float = key(-1.0, "kenlm: added for each word")
    unkweight: float = key(-math.inf, "kenlm: added for a word outside the lexicon; -inf: there are none")
    silweight: float = key(0.0, "added for each frame of the word boundary |")
    blankweight: float = key(0.0, "added to the blank's logit; below 0 where a model leaves out too much")
    logadd: bool = key(False, "add up the alignments of a text instead of taking the best one")

    @property
    def options(self) -> BeamOptions:
        """Width and weights of a beam search."""
        return BeamOptions(**{field.name: getattr(self, field.name) for field in dataclasses.fields(BeamOptions)})

    def __post_init__(self) -> None:
        self.options.check("decoding.")
        if not math.isfinite(self.blankweight):
            raise UserError(f"decoding.blankweight={self.blankweight} is not a finite number")
        for name, value in (("lexicon", self.lexicon), ("lmpath", self.lmpath)):
            if self.type == "kenlm" and not value:
                raise UserError(f"decoding.type=kenlm needs decoding.{name} (without a lexicon: decoding.type=lexfree)")
            if value and (self.type == "viterbi" or (self.type == "lexfree" and name == "lexicon")):
                raise UserError(
                    f"decoding.{name} is not used by decoding.type={self.type}: decoding.type=kenlm is what takes it"
                )


@dataclass(frozen=True)
class Settings(Sections):
    """The whole configuration, checked."""

    task: TaskSettings = TaskSettings()
    common: CommonSettings = CommonSettings()
    common_eval: CommonEvalSettings = CommonEvalSettings()
    dataset: DatasetSettings = DatasetSettings()
    decoding: DecodingSettings = DecodingSettings()
