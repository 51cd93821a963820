"""Several values of a key at once, in Hydra's spelling: a process and a folder for each combination, one table.

A combination that an earlier call has finished is not run again, unless one of its files has changed since.
"""

import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from tqdm import tqdm

from fairseq_skd.corpora.workers import share_cores
from fairseq_skd.decoding.settings import Settings
from fairseq_skd.errors import PARTIAL, UserError
from fairseq_skd.files import absolute, replacing
from fairseq_skd.processes import Processes

TABLE = "multirun.tsv"
_DONE = "settings.json"  # in the folder of a combination that came to its end


class Run(NamedTuple):
    """One combination.

    Attributes:
        values: the swept keys with their values, as they were written.
        arguments: of ``python -m fairseq_skd.infer``, its folder included.
        settings: the same, read.
        folder: of its results.
    """

    values: dict[str, str]
    arguments: list[str]
    settings: Settings
    folder: Path

    def summary(self) -> dict[str, Any] | None:
        """What it found; None if it has not been run, or if a file that it reads has changed since."""
        done, summary = self.folder / _DONE, self.folder / "summary.json"
        if not (done.is_file() and summary.is_file()) or done.read_text(encoding="utf-8") != _as_json(self.settings):
            return None
        task, decoding = self.settings.task, self.settings.decoding
        names = (self.settings.common_eval.path, decoding.lmpath, decoding.lexicon)
        inputs = [absolute(name) for name in names if name]
        inputs.append(absolute(task.data) / f"{self.settings.dataset.gen_subset}.tsv")
        if any(path.exists() and path.stat().st_mtime > done.stat().st_mtime for path in inputs):
            return None
        return json.loads(summary.read_text(encoding="utf-8"))


def combinations(overrides: Sequence[str]) -> list[tuple[dict[str, str], list[str]]]:
    """All combinations of the overrides that name several values (``a,b``, ``range(1,4)``), the last key fastest.

    Returns:
        the swept keys with their values, and all overrides with one value each.

    Raises:
        UserError: an override that does not parse, or nothing to sweep.
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
        raise UserError(f"--multirun {' '.join(overrides)}: {str(error).splitlines()[0]}") from error
    if not any(len(choice) > 1 for choice in choices):
        raise UserError("--multirun: no key has several values, such as decoding.lmweight=1,2,3")
    found = []
    for chosen in itertools.product(*choices):
        values = {key: str(value).strip("'\"") for key, value in chosen if key is not None}
        found.append((values, [f"{key}={value}" if key is not None else str(value) for key, value in chosen]))
    return found


def folder_name(values: dict[str, str]) -> str:
    """``lmweight=1,wordscore=-1``; what a file system may not like becomes ``_``."""
    return ",".join(re.sub(r"[^\w.+=-]", "_", f"{key.rpartition('.')[2]}={value}") for key, value in values.items())


def run_all(runs: Sequence[Run], base: Path, jobs: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run what is not done, each in a process of its own, and write the table.

    A run that left out audio files counts for the table, and as not done: the next call repeats it.

    Returns:
        swept values with ``wer``, ``cer`` and ``folder``, lowest word error rate first; and the audio files that runs
        left out, each once.

    Raises:
        UserError: a run failed; what it said. Runs that have not begun then do not.
    """
    if len({run.folder for run in runs}) < len(runs):
        raise UserError("--multirun: two combinations would have the same folder, their values differ in signs only")
    waiting = [run for run in runs if run.summary() is None]
    environment = dict(os.environ)
    share_cores(environment, jobs)
    processes = Processes()
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(runs), initial=len(runs) - len(waiting), unit="run") as bar:
        try:
            for future in as_completed([pool.submit(_run, run, environment, processes) for run in waiting]):
                future.result()
                bar.update()
        except UserError:
            processes.stop()  # those that run go on to their end
            raise
        except BaseException:
            processes.end()  # before the pool waits for its threads, and they for the runs
            raise
    rows = []
    left_out: dict[str, dict[str, Any]] = {}
    for run in runs:
        summary = json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))
        left_out.update((one["file"], one) for one in summary.get("not_decoded", []))
        rows.append({"wer": summary["wer"], "cer": summary["cer"], **run.values, "folder": str(run.folder)})
    rows.sort(key=lambda row: row["wer"])
    with replacing(base / TABLE) as path:
        lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return rows, list(left_out.values())


def _run(run: Run, environment: dict[str, str], processes: Processes) -> None:
    (run.folder / _DONE).unlink(missing_ok=True)
    command = [sys.executable, "-m", "fairseq_skd.infer", *run.arguments]
    done = processes.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done is None or done.returncode == PARTIAL:
        return
    if done.returncode:
        processes.stop()
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(f"{folder_name(run.values)}: {said.removeprefix('fairseq_skd.infer: ')}")
    with replacing(run.folder / _DONE) as path:
        path.write_text(_as_json(run.settings), encoding="utf-8")


def _as_json(settings: Settings) -> str:
    return json.dumps(dataclasses.asdict(settings), indent=2) + "\n"
