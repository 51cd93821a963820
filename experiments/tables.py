"""Write the tables of RESULTS.md, and the one of README.md, from the files in results/.

python -m experiments.tables                 # rewrite the blocks
python -m experiments.tables --check         # compare the blocks with the files, write nothing
python -m experiments.tables --print readme  # print one block

A block is between ``<!-- results: NAME -->`` and ``<!-- end -->``. Needs the extra ``analysis``.
"""

import argparse
import functools
import json
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.grid import REPOSITORY, Grid, Model, read_grid
from experiments.results import Results, rates, read_results
from fairseq_skd.errors import UserError, require, run_command

DATA = REPOSITORY / "results"
NOTES = ("results/demo/NOTES.md", "results/languages/NOTES.md", "results/speechocean762/NOTES.md")
DOCUMENTS = tuple(REPOSITORY / name for name in ("RESULTS.md", "README.md", *NOTES))
# Result files of each grid, by machine. Cells that list single runs keep this order.
FILES = {
    "an4": {"CPU": "an4/cpu.jsonl", "H100": "an4/h100.jsonl"},
    "speechocean762": {
        "H100": "speechocean762/h100.jsonl",
        "CPU": "speechocean762/cpu.jsonl",
        "CPU, 2 threads": "speechocean762/cpu_2_threads.jsonl",
    },
}
# Rows in order. Ablations are in results/an4/NOTES.md.
NAMES = {
    Model("ctc", 12): "plain CTC",
    Model("skd", 12): "SKD, full model",
    Model("skd_nonblank", 12): "SKD without blank frames, full model",
    Model("interctc", 12): "InterCTC, full model",
    Model("skd", 6): "**SKD, student**",
    Model("skd_nonblank", 6): "SKD without blank frames, student",
    Model("interctc", 6): "InterCTC, lower exit",
    Model("pruning", 6): "six layers trained alone (pruning)",
    Model("guide", 6): "separate teacher, Guide-CTC",
    Model("softmax_l2", 6): "separate teacher, squared distance",
    Model("softmax_kl", 6): "separate teacher, KL",
}
README_ROWS = (Model("ctc", 12), Model("skd", 12), Model("skd", 6), Model("pruning", 6))
NONE = "–"
_BLOCK = re.compile(r"(<!-- results: (\w+) -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)


@functools.cache
def _grid_and_results(corpus: str) -> tuple[Grid, Results]:
    grid = read_grid(REPOSITORY / "experiments" / f"{corpus}.yaml")
    return grid, read_results([DATA / file for file in FILES[corpus].values()], grid)


def _json(file: str) -> dict[str, Any]:
    return json.loads((DATA / file).read_text(encoding="utf-8"))


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _mean(values: Mapping[Any, float]) -> str:
    """The mean over runs with its interval, if there are enough runs."""
    from experiments.judge import mean_interval, one_digit, with_bounds

    known = list(values.values())
    interval = mean_interval(known)
    if interval is not None:
        return with_bounds(interval)
    return one_digit(sum(known) / len(known)) if known else NONE


def _rate(results: Results, model: Model, kind: str, subset: str = "test") -> str:
    return _mean(rates(results, model, kind, subset))


def _parameters(results: Results, model: Model) -> int:
    return next(arms[model.arm].parameters[model.exit] for arms in results.values() if model.arm in arms)


def readme() -> str:
    """Four models on AN4: error rate, and spikes on the teacher's frames."""
    _, results = _grid_and_results("an4")
    rows = [
        (
            NAMES[model],
            model.exit,
            f"{_parameters(results, model) / 1e6:.1f} M",
            _rate(results, model, "wer"),
            _rate(results, model, "same_frame"),
        )
        for model in README_ROWS
    ]
    header = ("model", "layers", "parameters", "test WER % [95 %]", "matched spikes on the same frame % [95 %]")
    seeds = len({run.seed for run in results})
    caption = (
        f"CMU AN4: 0.63 h of training speech, 130 test utterances, letters, greedy decoding. Mean of {len(results)} "
        f"runs ({seeds} seeds, each on {' and on '.join(FILES['an4'])}), 95 % interval over runs. The encoder is a "
        "small stand-in, hardly pretrained. Last column: the student against its teacher; six layers trained alone "
        "against plain CTC of the same seed."
    )
    return f"{_table(header, rows)}\n{textwrap.fill(caption, 100)}\n"


def an4() -> str:
    """Every arm with three seeds on each machine (KL: fewer): error rates and spikes."""
    _, results = _grid_and_results("an4")
    kinds = ("wer", "cer", "spikes", "same_frame")
    rows = [
        (name, model.exit, len(rates(results, model, "wer", "test")), *(_rate(results, model, kind) for kind in kinds))
        for model, name in NAMES.items()
    ]
    measured = ("WER", "CER", "spike disagreement", "matched spikes on the same frame")
    return _table(("model", "layers", "runs", *(f"{what} %" for what in measured)), rows)


def claims() -> str:
    """The claims of AN4's grid with their verdicts on test and valid."""
    from experiments.judge import judge, points

    grid, results = _grid_and_results("an4")
    rows = []
    for claim in grid.claims:
        test, valid = (judge(results, claim, subset) for subset in ("test", "valid"))
        text = claim.text + (f" ({claim.margin:g} point allowed)" if claim.margin else "")
        on_valid, outcome = points(valid), f"{test.outcome} / {valid.outcome}"
        if claim.rate == "spikes":  # compared on test only
            on_valid, outcome = NONE, test.outcome
        outcome = re.sub("(does not hold|holds)", r"**\1**", outcome)
        rows.append((text, claim.compared.partition(",")[0], len(test.by_run), points(test), on_valid, outcome))
    return _table(("claim", "points of", "runs", "test", "valid", "verdict: test / valid"), rows)


def commits() -> str:
    """Commits that trained each arm of the tables, by machine."""
    rows = []
    for corpus, files in FILES.items():
        for machine, file in files.items():
            by_commit: dict[str, dict[str, list[int]]] = {}
            lines = (json.loads(line) for line in (DATA / file).read_text(encoding="utf-8").splitlines())
            for run in lines:
                if run["arm"] in {model.arm for model in NAMES}:
                    by_commit.setdefault(run["commit"][:7], {}).setdefault(run["arm"], []).append(run["seed"])
            for commit, arms in by_commit.items():
                told = ", ".join(f"{arm} ({' '.join(map(str, seeds))})" for arm, seeds in arms.items())
                rows.append((corpus, machine, f"[results/{file}](results/{file})", f"`{commit}`", told))
    return _table(("corpus", "machine", "data file", "commit", "arms (seeds)"), rows)


def speechocean762() -> str:
    """The four arms on speechocean762; one value per machine, since there is one seed."""
    from experiments.judge import one_digit

    _, results = _grid_and_results("speechocean762")
    order = range(len(FILES["speechocean762"]))

    def runs(model: Model, kind: str, subset: str) -> str:
        values = {run.file: value for run, value in rates(results, model, kind, subset).items()}
        return " / ".join(one_digit(values[file]) if file in values else NONE for file in order) if values else NONE

    columns = [("cer", "test"), ("cer", "test_adults"), ("cer", "test_children"), ("wer", "test"), ("spikes", "test")]
    rows = [
        (name, model.exit, *(runs(model, *column) for column in columns))
        for model, name in NAMES.items()
        if any(model.arm in arms for arms in results.values())
    ]
    measured = ("CER %, test", "CER %, adults", "CER %, children", "WER %, test", "spike disagreement %")
    return _table(("model", "layers", *measured), rows)


def utterances() -> str:
    """Differences of single runs on speechocean762, over utterances."""
    subsets = ("test", "test_adults", "test_children", "valid_adults", "valid_children")
    rows = [
        (entry["claim"], *(_copied(entry.get(subset)) for subset in subsets))
        for entry in _json("speechocean762/utterances.json")["differences"]
    ]
    return _table(("claim", *(subset.replace("_", ", ") for subset in subsets)), rows)


def _copied(value: Mapping[str, float] | None, digits: int = 1) -> str:
    """A value and, where it is known, its interval."""
    if value is None:
        return NONE
    bounds = [f"{value[key]:.{digits}f}" for key in ("low", "high") if key in value]
    return f"{value['value']:.{digits}f}" + (f" [{', '.join(bounds)}]" if bounds else "")


def demo() -> str:
    """Error rates of the demo's two exits in its five runs."""
    rows = [
        (
            number,
            run["environment"],
            f"`{run['commit']}`" if run["commit"] else "not noted",
            *(_copied(run["exits"][name]["wer"], 2) for name in ("teacher", "student")),
        )
        for number, run in enumerate(_json("demo/runs.json")["runs"], 1)
    ]
    return _table(("run", "environment", "commit", "teacher, test WER %", "student, test WER %"), rows)


def word_starts() -> str:
    """Spikes against the starts of words, at each exit of the demo."""
    figures = [(side, name) for side in ("signed", "absolute") for name in ("median", "90th_percentile")]
    rows = [
        (
            f"{found['exit_layer']} of {found['layers']}",
            which.replace("_", " "),
            found[which]["words"],
            *(_copied(found[which][f"{side}_ms"][name], 0) for side, name in figures),
        )
        for found in _json("demo/word_starts.json")["exits"]
        for which in ("all_words", "without_first_words")
    ]
    measured = (f"{side} error, {name.replace('_', ' ')}, ms" for side, name in figures)
    return _table(("layers", "words", "n", *measured), rows)


def cost() -> str:
    """Cost of a training step, decoding, manifests and HuBERT's pretraining loss."""
    rows: list[tuple[object, ...]] = []

    def add(what: str, figures: Mapping[str, Any], digits: int, unit: float = 1, target: float | None = None) -> None:
        first, second, ratio = (value for key, value in figures.items() if key != "ratio_of_medians")
        medians = (f"{one['median'] / unit:.{digits}f}" for one in (first, second))
        places = 3 if ratio["median"] < 10 else 0
        shown = f"{ratio['median']:.{places}f}"
        if ratio["number"] > 1 and ratio["least"] != ratio["most"]:
            shown += f" [{ratio['lower']:.{places}f}, {ratio['upper']:.{places}f}]"
        met = "" if target is None else f"{target:.3g}: {'met' if ratio['median'] <= target else 'missed'}"
        rows.append((what, *medians, shown, met or NONE, ratio["number"]))

    step, mib = _json("cost/train_step.json")["figures"], 2**20
    add("training step, s (A: plain CTC, B: SKD)", step["wall"], 2, target=1.05)
    add("training step, CPU s", step["cpu"], 2)
    add("training step, peak memory, MiB", step["memory"], 0, mib, target=1.05)
    exits = _json("cost/decode_exit.json")["figures"]
    add("decoding 10 s of audio, s (A: 12 layers, B: 6)", exits["wall"], 2, target=1.05 * exits["multiply_add_ratio"])
    add("decoding, CPU s", exits["cpu"], 2)
    add("decoding, 10^9 multiply-adds", exits["counted"], 1, 1e9)
    add("decoding, parameters, millions", exits["parameters"], 1, 1e6)
    lists = _json("cost/manifest.json")["figures"]
    add("manifest of 100,000 files, s (A: fairseq, B: ours)", lists["large_wall"], 2, target=1 / 1.6)
    add("manifest of 100,000 files, CPU s", lists["large_cpu"], 2)
    add("manifest of 100 files, s", lists["small_wall"], 2, target=1)
    loss = _json("cost/pretraining_loss.json")["figures"]
    order = ("one product", "fairseq", "ratio")
    swapped = {kind: {key: loss[kind][key] for key in order} for kind in ("wall", "cpu", "memory")}
    add("HuBERT's pretraining loss, s (A: ours, B: fairseq)", swapped["wall"], 3)
    add("HuBERT's pretraining loss, CPU s", swapped["cpu"], 3)
    add("HuBERT's pretraining loss, peak memory, MiB", swapped["memory"], 1, mib)
    return _table(("measured", "A", "B", "B / A [quartiles]", "target, at most", "pairs"), rows)


def long_audio() -> str:
    """Peak memory of transcribing long audio at base size."""
    rows = [
        [
            {"hubert": "HuBERT", "wavlm": "WavLM"}[kind],
            f"{float(minutes):.0f}",
            f"{found['loaded']:.0f}",
            f"{found['peak']:.0f}",
        ]
        for kind, lengths in _json("cost/long_audio.json")["figures"].items()
        for minutes, found in lengths.items()
    ]
    return _table(["encoder, 12 layers x 768", "minutes of audio", "model loaded, MB", "peak, MB"], rows)


def _formats(file: str) -> list[tuple[str, dict[str, Any]]]:
    """Exit and format, as a row names them, and the figures of each."""
    arms = _json(file)["figures"]["formats"]
    return [(", ".join(reversed(name.rsplit(" ", 1))), arms[name]) for name in arms if " / " not in name]


def formats() -> str:
    """Size, time and memory of each format at base size."""
    rows = []
    for name, found in _formats("cost/formats.json"):
        factors, ratio = found["real_time_factors"], found["time_ratio"]
        shown = f"{ratio['median']:.2f} [{ratio['lower']:.2f}, {ratio['upper']:.2f}]"
        sizes = (f"{found[key]:.0f}" for key in ("megabytes", "peak_mib"))
        rows.append([name, *sizes, f"{factors['1']:.3f}", f"{factors['2']:.3f}", shown])
    return _table(("exit, format", "MB", "peak MiB", "RTF, 1 thread", "RTF, 2 threads", "time / torch teacher"), rows)


def format_errors() -> str:
    """Errors of each format on AN4."""
    rows = [[name, f"{found['wer']:.1f}", found["same_text"]] for name, found in _formats("an4/formats.json")]
    return _table(("exit, format", "test WER %", "texts equal to torch float32, of 130"), rows)


def languages() -> str:
    """Errors and spikes of the seven languages that espeak-ng speaks."""
    from experiments.languages import HEADER, rows

    return _table(HEADER, rows(_json("languages/languages.json")["languages"]))


BLOCKS: Mapping[str, Callable[[], str]] = {
    block.__name__: block
    for block in (
        readme,
        an4,
        claims,
        speechocean762,
        utterances,
        demo,
        word_starts,
        cost,
        long_audio,
        formats,
        format_errors,
        languages,
        commits,
    )
}


def rewritten(text: str, where: Path) -> str:
    """A document with its blocks as the files in results/ say.

    Raises:
        UserError: the name of a block is unknown.
    """

    def write(found: re.Match[str]) -> str:
        begin, name, _, end = found.groups()
        if name not in BLOCKS:
            raise UserError(f"{where}: there is no block {name}; give one of {', '.join(BLOCKS)}")
        return f"{begin}{BLOCKS[name]()}{end}"

    return _BLOCK.sub(write, text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Rewrite, check or print the blocks.

    Raises:
        UserError: with ``--check``, a block differs from the files in results/.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare the blocks with the files, write nothing")
    parser.add_argument("--print", choices=tuple(BLOCKS), metavar="NAME", help=f"one of {', '.join(BLOCKS)}")
    args = parser.parse_args(arguments)
    require(["scipy"], "analysis", "experiments.tables")
    if args.print:
        print(BLOCKS[args.print](), end="")
        return
    for document in DOCUMENTS:
        before = document.read_text(encoding="utf-8")
        after = rewritten(before, document)
        if args.check and after != before:
            raise UserError(f"{document}: a table differs from results/: run python -m experiments.tables")
        if after != before:
            document.write_text(after, encoding="utf-8")
            print(document)


if __name__ == "__main__":
    sys.exit(run_command("tables", main))
