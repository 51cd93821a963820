"""What a grid's runs came to, utterance by utterance, and what can be said of two of them."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from experiments.claims import Claim, Model
from experiments.grid import aligned, decoded
from experiments.results import KEYS, RESULT, read_record
from fairseq_skd.errors import UserError
from fairseq_skd.scoring.bootstrap import Interval, paired_difference, rate_interval
from fairseq_skd.scoring.texts import utterance_errors

# What a command tells apart from that of another seed, or of another machine: data and encoders have hashes.
_OF_A_RUN = {
    *("common.seed", "checkpoint.save_dir", "hydra.run.dir", "criterion.teacher_path"),
    *("task.data", "task.label_dir", "model.w2v_path"),
}

Integers = npt.NDArray[np.int64]


class Counts(NamedTuple):
    """Errors and what they are counted against, (U,) each, summed over seeds."""

    errors: Integers
    totals: Integers


class Verdict(NamedTuple):
    """What became of a claim.

    Attributes:
        outcome: ``holds``, ``does not hold``, ``undecided`` or ``not run``.
        difference: better's rate minus worse's in percentage points; None if a model was not run.
        by_seed: the same of each seed.
    """

    outcome: str
    difference: Interval | None
    by_seed: dict[int, float]


@dataclass(frozen=True)
class Outcomes:
    """All results of one corpus below a folder.

    Attributes:
        folder: of the corpus, with the arms.
        results: as run_grid.py wrote them.
        subset: on which words are counted.
    """

    folder: Path
    results: Sequence[dict[str, Any]]
    subset: str

    @classmethod
    def read(cls, folder: Path, subset: str) -> "Outcomes":
        """The results below a corpus's folder.

        Raises:
            UserError: there is none, one is damaged or not in its place, or they are of different data or encoders.
        """
        files = sorted(folder.glob(f"*/seed*/{RESULT}"))
        if not files:
            raise UserError(f"{folder} holds no {RESULT}: give --runs the --out of run_grid.py")
        results = [_read(file, KEYS) for file in files]
        for file, result in zip(files, results, strict=True):
            place = f"{result['arm']}/seed{result['seed']}"
            if file.parent != folder / place:
                raise UserError(f"{file} is the result of {place}: move it out of {folder}")
            for key, what in (("data_sha256", "of different data"), ("encoder_sha256", "from different encoders")):
                if result[key] != results[0][key]:
                    raise UserError(f"{file} and {files[0]} are {what}: they cannot be compared")
        return cls(folder, results, subset)

    def models(self) -> list[Model]:
        """Those that were decoded on the subset."""
        return sorted({Model(r["arm"], score["exit"]) for r in self.results for score in self._scores(r)})

    def scores(self, model: Model) -> dict[int, dict[str, Any]]:
        """Seed -> scores on the subset."""
        mine = [result for result in self.results if result["arm"] == model.arm]
        return {r["seed"]: score for r in mine for score in self._scores(r) if score["exit"] == model.exit}

    def spikes(self, model: Model) -> dict[int, dict[str, Any]]:
        """Seed -> where the model spikes, beside its teacher."""
        mine = [result for result in self.results if result["arm"] == model.arm]
        return {r["seed"]: found for r in mine for found in r["alignment"] if found["exit"] == model.exit}

    def words(self, model: Model, seeds: Sequence[int]) -> Counts:
        """Word errors of each utterance."""
        return self._errors(model, seeds)

    def characters(self, model: Model, seeds: Sequence[int]) -> Counts:
        """Character errors of each utterance."""
        return self._errors(model, seeds, characters=True)

    def _errors(self, model: Model, seeds: Sequence[int], characters: bool = False) -> Counts:
        folders = [decoded(self._run(model, seed), self.subset, model.exit) for seed in seeds]
        runs = [utterance_errors(folder, characters) for folder in folders]
        return Counts(*(np.sum([[count[i] for count in run] for run in runs], axis=0) for i in (0, 1)))

    def lost_spikes(self, model: Model, seeds: Sequence[int]) -> Counts:
        """Spikes of the teacher that the model does not have on the same frames, of each utterance."""
        files = [aligned(self._run(model, seed), model.exit) / "align.json" for seed in seeds]
        columns = [_read(file, ("by_utterance",))["by_utterance"] for file in files]
        for file, column in zip(files, columns, strict=True):
            if not {"lost_spikes", "teacher_spikes"} <= set(column):
                raise UserError(f"{file} is damaged: delete it, and run run_grid.py again")
        return Counts(*(np.sum([c[key] for c in columns], axis=0) for key in ("lost_spikes", "teacher_spikes")))

    def wer(self, model: Model) -> Interval:
        """WER in percent, pooled over seeds and utterances, with its bootstrap interval over utterances."""
        return _percent(rate_interval(*self.words(model, sorted(self.scores(model)))))

    def judge(self, claim: Claim) -> Verdict:
        """What becomes of a claim; models are paired by utterance and by seed.

        It holds if the interval of the difference lies below the margin, and does not if it lies above; where there is
        no margin, every seed has to be of the same mind. Else it is undecided. The interval is over utterances: what
        another seed would do is only known from the seeds.

        Raises:
            UserError: the two were trained for different numbers of updates, or decoded on different utterances.
        """
        by_model, counts = {
            "wer": (self.scores, self.words),
            "cer": (self.scores, self.characters),
            "spikes": (self.spikes, self.lost_spikes),
        }[claim.rate]
        seeds = sorted(set(by_model(claim.better)) & set(by_model(claim.worse)))
        if not seeds:
            return Verdict("not run", None, {})
        trained = {model: self._updates(model, seeds) for model in (claim.better, claim.worse)}
        if trained[claim.better] != trained[claim.worse]:
            told = " and ".join(f"{model} for {updates}" for model, updates in trained.items())
            raise UserError(f"updates differ, so the claim {claim.text} cannot be judged: {told}")

        def difference(chosen: Sequence[int]) -> Interval:
            a, b = counts(claim.better, chosen), counts(claim.worse, chosen)
            if len(a.totals) != len(b.totals) or (claim.rate != "spikes" and (a.totals != b.totals).any()):
                raise UserError(
                    f"{claim.better} and {claim.worse} were decoded on different utterances: decode one of them again"
                )
            return _percent(paired_difference(a.errors, b.errors, a.totals, b.totals).interval)

        found = difference(seeds)
        by_seed = {seed: difference([seed]).value for seed in seeds}
        if found.high < claim.margin and (claim.margin > 0 or all(value < 0 for value in by_seed.values())):
            return Verdict("holds", found, by_seed)
        if found.low > claim.margin and (claim.margin > 0 or all(value > 0 for value in by_seed.values())):
            return Verdict("does not hold", found, by_seed)
        return Verdict("undecided", found, by_seed)

    def _updates(self, model: Model, seeds: Sequence[int]) -> list[int]:
        return [r["updates"] for r in self.results if r["arm"] == model.arm and r["seed"] in seeds]

    def _run(self, model: Model, seed: int) -> Path:
        return self.folder / model.arm / f"seed{seed}"

    def _scores(self, result: dict[str, Any]) -> list[dict[str, Any]]:
        return [score for score in result["scores"] if score["subset"] == self.subset]


def mixed(results: Sequence[dict[str, Any]], arms: Sequence[str], names: Sequence[str] | None = None) -> list[str]:
    """Of these arms, those whose runs were trained with different settings, a sentence each.

    Args:
        results: lines of runs.
        arms: of a grid.
        names: of the runs, as they are called; by their seeds if not given.
    """
    called = names or [f"seed {result['seed']}" for result in results]
    told = []
    for arm in arms:
        mine = [(name, _settings(r["command"])) for name, r in zip(called, results, strict=True) if r["arm"] == arm]
        for name, settings in mine[1:]:
            if other := sorted(settings ^ mine[0][1]):
                told.append(f"{arm}: {mine[0][0]} and {name} differ in {', '.join(other)}")
    return told


def _settings(command: str) -> set[str]:
    try:
        parts = shlex.split(command)
    except ValueError:  # a quote that does not end
        parts = command.split()
    return {part for part in parts if part.partition("=")[0].lstrip("+") not in _OF_A_RUN}


def _percent(interval: Interval) -> Interval:
    return Interval(*(100 * bound for bound in interval))


def _read(file: Path, keys: Sequence[str]) -> dict[str, Any]:
    found = read_record(file, keys)
    if found is None:
        raise UserError(f"{file} is missing or damaged: delete it, and run run_grid.py again")
    return found
