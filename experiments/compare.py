r"""What a grid found: a table of its arms, and what becomes of the claims in its YAML. Markdown on stdout.

python experiments/compare.py experiments/an4.yaml --runs /runs --subset test
python experiments/compare.py experiments/an4.yaml --runs /runs --tries
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, this folder's parent is not searched

from experiments.claims import Claim, Model
from experiments.grid_file import read_grid, tries_of
from experiments.outcomes import Outcomes, Verdict, mixed
from experiments.tables import markdown, one_digit, with_bounds
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.extras import require
from fairseq_skd.scoring.bootstrap import RESAMPLES

RULE = f"""\
A claim holds where the interval lies below its margin (0 if it has none), and does not hold where it lies above;
without a margin every seed has to say the same, too. Else it is undecided. Intervals are of {RESAMPLES:,} bootstrap
draws over utterances, paired by utterance and seed, all seeds pooled: what another seed would do they do not say,
over_runs.py's do."""


def table(outcomes: Outcomes, order: Sequence[str]) -> str:
    """A row a model: error rates over all seeds, and where it spikes beside its teacher."""
    models = sorted(
        (model for model in outcomes.models() if model.arm in order),
        key=lambda model: (order.index(model.arm), -model.exit),
    )
    shown = [result for result in outcomes.results if result["arm"] in order]
    aligned = sorted({found["subset"] for result in shown for found in result["alignment"]})
    on = f" ({', '.join(aligned)})" if aligned and aligned != [outcomes.subset] else ""
    header = (
        *("arm", "layers", "parameters", "seeds", "WER % [95 %]", "of each seed", "CER %"),
        *(f"spike disagreement %{on}", "on none of its frames %", "offset, mean ms"),
    )
    return markdown([_row(outcomes, model) for model in models], header)


def _row(outcomes: Outcomes, model: Model) -> tuple[str, ...]:
    scores, spikes = outcomes.scores(model), outcomes.spikes(model)
    seeds = sorted(scores)
    cer = 100 * sum(s["character_errors"] for s in scores.values()) / sum(s["characters"] for s in scores.values())

    def mean(values: Sequence[float | None], scale: float = 1.0) -> str:
        known = [value for value in values if value is not None]  # none where the teacher has no spike
        return f"{scale * statistics.fmean(known):.1f}" if known else "-" * bool(values)

    return (
        *(model.arm, str(model.exit), f"{scores[seeds[0]]['parameters']:,}", str(len(seeds))),
        with_bounds(outcomes.wer(model)),
        _spread([scores[seed]["wer"] for seed in seeds]),
        f"{cer:.1f}",
        mean([found["spike_disagreement"]["value"] for found in spikes.values()], 100),
        mean([found["spike_miss"]["value"] for found in spikes.values()], 100),
        mean([found["offset"]["mean_ms"] for found in spikes.values()]),
    )


def verdicts(outcomes: Outcomes, claims: Sequence[Claim]) -> str:
    """A row a claim."""
    rows = []
    for claim in claims:
        verdict = outcomes.judge(claim)
        outcome = f"**{verdict.outcome}**" + ", one seed" * (len(verdict.by_seed) == 1)
        rows.append((claim.text, claim.compared, *_difference(verdict), outcome))
    header = ("claim", "compared", "points [95 %]", "of each seed", "outcome")
    return markdown(rows, header)


def _difference(verdict: Verdict) -> tuple[str, str]:
    if verdict.difference is None:
        return "", ""
    return with_bounds(verdict.difference), ", ".join(map(one_digit, verdict.by_seed.values()))


def _spread(values: Sequence[float]) -> str:
    shown = ", ".join(f"{value:.1f}" for value in values)
    return f"{shown}; sd {statistics.stdev(values):.1f}" if len(values) > 1 else shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Arguments in, two tables out."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=RULE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("grid", type=Path, help="the grid's YAML, such as experiments/an4.yaml")
    parser.add_argument("--runs", type=Path, required=True, help="--out of run_grid.py")
    parser.add_argument("--subset", default="test", help="on which errors are counted (test)")
    parser.add_argument(
        "--tries", action="store_true", help="the short tries of the weights, on the grid's first subset"
    )
    args = parser.parse_args(arguments)
    require(["scipy"], "analysis", "experiments/compare.py")
    grid = read_grid(args.grid)
    if args.tries:
        tries = tries_of(grid)
        outcomes = Outcomes.read(args.runs / grid["corpus"], tries["subsets"][0])
        if not {model.arm for model in outcomes.models()} & set(tries["arms"]):
            raise UserError(f"{outcomes.folder} holds no tries: run run_grid.py --tries")
        print(_with_notes(outcomes, list(tries["arms"])))
        return
    if args.subset not in grid["subsets"]:
        raise UserError(f"--subset {args.subset}: the grid has {', '.join(grid['subsets'])}")
    claims = [Claim.read(entry, grid["arms"]) for entry in grid["claims"]]
    outcomes = Outcomes.read(args.runs / grid["corpus"], args.subset)
    print(_with_notes(outcomes, list(grid["arms"])))
    print(f"\n{verdicts(outcomes, claims)}\n\n{RULE}")


def _with_notes(outcomes: Outcomes, arms: Sequence[str]) -> str:
    return "\n\n".join([table(outcomes, arms), *mixed(outcomes.results, arms)])


if __name__ == "__main__":
    sys.exit(run_command("compare", main))
