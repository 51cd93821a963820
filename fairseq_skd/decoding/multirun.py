"""Decode with several values per key, in Hydra's syntax: one folder per combination, and a table.

A combination that an earlier call finished is not run again, unless one of its input files changed.
"""

import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from tqdm import tqdm

from fairseq_skd.decoding.config import Settings
from fairseq_skd.decoding.decode import SubsetLogits, prepare, results_folder, search_and_write
from fairseq_skd.decoding.evaluation_set import Ran
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import absolute, replacing
from fairseq_skd.files.progress import STYLE
from fairseq_skd.files.workers import run_over
from fairseq_skd.recognizer import Output
from fairseq_skd.scoring.leading import CER, WER, leads

TABLE = "multirun.tsv"
_DONE = "settings.json"  # written when a combination is finished
_CACHE = ".logits-"  # prefix of the temporary folder of logits


class Run(NamedTuple):
    """One combination of values.

    Attributes:
        values: the swept keys with their values, as written on the command line.
        settings: all settings.
        folder: results folder.
    """

    values: dict[str, str]
    settings: Settings
    folder: Path

    def summary(self) -> dict[str, Any] | None:
        """Read its summary; None if it has not been run, or an input file changed since."""
        done, summary = self.folder / _DONE, self.folder / "summary.json"
        if not (done.is_file() and summary.is_file()) or done.read_text(encoding="utf-8") != _as_json(self.settings):
            return None
        task, decoding = self.settings.task, self.settings.decoding
        names = (self.settings.common_eval.path, decoding.lmpath, decoding.lexicon, decoding.phrases)
        inputs = [absolute(name) for name in names if name]
        subset = self.settings.dataset.gen_subset
        inputs.append(absolute(task.data) / f"{subset}.tsv")
        labels = absolute(task.label_dir or task.data)
        inputs += [*labels.glob(f"{subset}.*"), *labels.glob("dict.*.txt")]
        if any(path.exists() and path.stat().st_mtime > done.stat().st_mtime for path in inputs):
            return None
        return json.loads(summary.read_text(encoding="utf-8"))


def combinations(overrides: Sequence[str]) -> list[tuple[dict[str, str], list[str]]]:
    """List all combinations of overrides with several values (``a,b``, ``range(1,4)``).

    The last key changes fastest.

    Returns:
        per combination, the swept keys with their values, and all overrides with one value each.

    Raises:
        UserError: an override does not parse, or no key has several values.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        choices = [
            [(override.get_key_element(), value) for value in override.sweep_string_iterator()]
            if override.is_sweep_override()
            else [(None, override.input_line)]
            for override in parsed
        ]
    except Exception as error:  # hydra's grammar raises several kinds
        raise UserError(
            f"--multirun {' '.join(overrides)}: {str(error).splitlines()[0]}; write key=value, or key=a,b"
        ) from error
    if not any(len(choice) > 1 for choice in choices):
        raise UserError("--multirun: no key has several values: give some, such as decoding.lmweight=1,2,3")
    found = []
    for chosen in itertools.product(*choices):
        values = {key: str(value).strip("'\"") for key, value in chosen if key is not None}
        found.append((values, [f"{key}={value}" if key is not None else str(value) for key, value in chosen]))
    return found


def folder_name(values: dict[str, str]) -> str:
    """Name a folder such as ``lmweight=1,wordscore=-1``; unusual characters become ``_``."""
    return ",".join(re.sub(r"[^\w.+=-]", "_", f"{key.rpartition('.')[2]}={value}") for key, value in values.items())


def run_all(runs: Sequence[Run], base: Path, jobs: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run the unfinished combinations and write the table.

    The encoder runs once for all combinations that share checkpoint, exit, subset and batches. Its
    logits stay in ``base`` until the last of them is searched. A run that left out audio files is
    in the table, but the next call repeats it.

    Args:
        runs: the combinations.
        base: folder of the table.
        jobs: number of searches at a time.

    Returns:
        one row per run with the error rates, the leading one first, the swept values and
        ``folder``, lowest rate first; and the audio files that runs left out, each once.

    Raises:
        UserError: a run failed; later runs are not started.
    """
    if len({run.folder for run in runs}) < len(runs):
        raise UserError(
            "--multirun: two combinations would have the same folder, because their values differ only in characters "
            "that are replaced by _: rename one"
        )
    for leftover in base.glob(f"{_CACHE}*"):  # from a call that was killed
        shutil.rmtree(leftover)
    waiting = [run for run in runs if run.summary() is None]
    for number, group in enumerate(_by_encoder(waiting), start=1):
        with tempfile.TemporaryDirectory(prefix=_CACHE, dir=results_folder(str(base))) as cache:
            with _named(group[0]):
                plan = prepare(group[0].settings)
                if plan.data.reference is None:
                    raise UserError("--multirun compares error rates, but the subset has no labels: write them")
                save_logits(SubsetLogits.computed(plan), Path(cache))
            title = f"searching {number}" if len(waiting) > len(group) else "searching"
            for _ in run_over(functools.partial(_search, Path(cache)), group, jobs, title, unit="run"):
                pass
    rows = []
    left_out: dict[str, dict[str, Any]] = {}
    for run in runs:
        summary = json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))
        left_out.update((one["file"], one) for one in summary["not_decoded"])
        first = leads(summary)
        rates = {rate: summary[rate] for rate in (first, WER, CER)}
        rows.append({**rates, **run.values, "folder": str(run.folder)})
    rows.sort(key=lambda row: row[first])  # the runs share their references
    with replacing(base / TABLE) as path:
        lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return rows, list(left_out.values())


def _by_encoder(runs: Sequence[Run]) -> Collection[list[Run]]:
    """Group the runs that need the same logits."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        common_eval = dataclasses.replace(run.settings.common_eval, results_path=None)
        sections = (run.settings.task, run.settings.common, common_eval, run.settings.dataset)
        key = json.dumps([dataclasses.asdict(one) for one in sections]) + str(run.settings.decoding.layer or 0)
        groups.setdefault(key, []).append(run)
    return groups.values()


def save_logits(frames: SubsetLogits, folder: Path) -> None:
    """Compute logits and save them in a folder.

    Raises:
        UserError: the model cannot be run, see :func:`~fairseq_skd.decoding.evaluation_set.run`; or
            the disk is full.
    """
    count = 0
    with tqdm(total=frames.utterances, desc="running the encoder", unit="utterance", **STYLE) as progress:
        for count, batch in enumerate(frames, start=1):
            logits = {layer: values.cpu() for layer, values in batch.output.logits.items()}
            with replacing(folder / f"{count}.pt") as path:
                torch.save((batch.places, logits, batch.output.lengths.cpu(), batch.samples, batch.seconds), path)
            progress.update(len(batch.places))
    about = {name: value for name, value in vars(frames).items() if name != "batches"}
    with replacing(folder / "about.pt") as path:
        torch.save({"batches": count, **about}, path)


def saved_logits(folder: Path) -> SubsetLogits:
    """Read what :func:`save_logits` wrote."""
    about = torch.load(folder / "about.pt", weights_only=True)
    return SubsetLogits(_read(folder, about.pop("batches")), **about)


def _read(folder: Path, batches: int) -> Iterator[Ran]:
    for number in range(1, batches + 1):
        places, logits, lengths, samples, seconds = torch.load(folder / f"{number}.pt", weights_only=True)
        yield Ran(places, Output(logits, lengths), samples, seconds)


def _search(cache: Path, run: Run) -> None:
    """Run one combination without output, since others may run beside it."""
    done = run.folder / _DONE
    done.unlink(missing_ok=True)
    with _named(run), open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        if multiprocessing.parent_process():
            torch.set_num_threads(1)  # a fork does not copy the pool of threads
        summary = search_and_write(prepare(run.settings), saved_logits(cache))
    if not summary["not_decoded"]:
        with replacing(done) as path:
            path.write_text(_as_json(run.settings), encoding="utf-8")


@contextmanager
def _named(run: Run) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{folder_name(run.values)}: {error}") from error


def _as_json(settings: Settings) -> str:
    return json.dumps(dataclasses.asdict(settings), indent=2) + "\n"
