"""``python -m fairseq_skd.demo``: all steps on a small synthetic corpus, in minutes, on a CPU."""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from fairseq_skd.cli import hydra_overrides, shipped_folder
from fairseq_skd.errors import UserError, run_command

DESCRIPTION = """\
Run all steps on a small synthetic corpus: synthesize the speech, pretrain a tiny HuBERT, fine-tune it with
self-knowledge distillation, decode the test set with teacher and student, and compare their spikes. Each command is
printed before it runs. Steps that an earlier call finished in the same folder are skipped.
"""
DONE = "done.txt"  # finished commands, in order
MOST_THREADS = 2  # a model this small is slower with more


class Step(NamedTuple):
    """One command of the demo.

    Attributes:
        output: file or folder that it writes in the demo's folder.
        title: what it does.
        command: space-separated words; ``{out}``, ``{pretrain}`` and ``{python}`` are filled in.
    """

    output: str
    title: str
    command: str


STEPS = (
    Step(
        "corpus",
        "Synthesize a small corpus with espeak-ng",
        "{python} -m fairseq_skd.demo.corpus --out {out}/corpus",
    ),
    Step(
        "manifest",
        "Check the table and write fairseq's manifests",
        """{python} -m fairseq_skd.manifest table {out}/corpus/demo.tsv --audio-root {out}/corpus/audio
        --out {out}/manifest""",
    ),
    Step(
        "labels",
        "Label the frames for pretraining: 50 clusters of MFCCs",
        "{python} -m fairseq_skd.demo.pretraining_labels {out}/manifest --out {out}/labels --clusters 50",
    ),
    Step(
        "pretrain",
        "Pretrain a HuBERT with 4 layers on these labels",
        """{python} -m fairseq_skd.train --config-dir {pretrain} hubert_tiny common.cpu=true
        task.data={out}/manifest task.label_dir={out}/labels optimization.max_update=1000 common.log_interval=10
        hydra.run.dir={out}/pretrain""",
    ),
    # Encoder and corpus are smaller than those that hubert_mini was made for. Small batches without
    # dropout give more updates in the same time, so the WER converges on every machine.
    Step(
        "finetune",
        "Fine-tune it with self-knowledge distillation: its first 2 layers are the student",
        """{python} -m fairseq_skd.train hubert_mini common.cpu=true task.data={out}/manifest
        model.w2v_path={out}/pretrain/checkpoints/checkpoint_last.pt
        model.student_layers=[2] model.dropout_input=0 model.final_dropout=0 model.dropout=0 model.attention_dropout=0
        model.activation_dropout=0 dataset.max_tokens=160000 dataset.validate_interval=2 checkpoint.save_interval=2
        optimization.lr=[3e-3] optimization.max_update=1600 common.log_interval=10 hydra.run.dir={out}/finetune""",
    ),
    *(
        Step(
            f"decode-{who}",
            f"Decode the test set with the {who}, {layers}",
            f"""{{python}} -m fairseq_skd.infer task.data={{out}}/manifest
            common_eval.path={{out}}/finetune/checkpoints/checkpoint_best.pt common.cpu=true dataset.gen_subset=test
            decoding.layer={layer} common_eval.results_path={{out}}/decode-{who}""",
        )
        for who, layer, layers in (("teacher", 4, "all 4 layers"), ("student", 2, "2 layers"))
    ),
    Step(
        "align",
        "Compare the spikes of teacher and student",
        """{python} -m fairseq_skd.align task.data={out}/manifest
        common_eval.path={out}/finetune/checkpoints/checkpoint_best.pt common.cpu=true dataset.gen_subset=test
        common_eval.results_path={out}/align""",
    ),
    Step(
        "report.html",
        "Write one page with curves, tables, spikes, and utterances to listen to",
        "{python} -m fairseq_skd.report {out} --out {out}/report.html",
    ),
)


def words_of(command: str, places: Mapping[str, object]) -> list[str]:
    """Split a command and fill in its paths, quoted for Hydra if needed in ``key=value``."""
    words: list[str] = []
    for word in command.split():
        key, sign, value = word.rpartition("=")
        filled = value.format_map(places)
        words += hydra_overrides({key: filled if filled == value else Path(filled)}) if sign else [filled]
    return words


def prepare_folder(out: Path) -> None:
    """Create the demo's folder.

    Raises:
        UserError: it is a file, or holds files that the demo did not write.
    """
    if not (out / DONE).is_file():
        if out.is_file() or (out.is_dir() and any(out.iterdir())):
            raise UserError(f"--out {out} exists and was not made by this demo: give a new folder")
        out.mkdir(parents=True, exist_ok=True)
        (out / DONE).touch()


def run_steps(steps: Sequence[Step], out: Path, places: Mapping[str, Path], environment: Mapping[str, str]) -> None:
    """Print and run the unfinished commands in order; after one that ran, all later ones run too.

    Raises:
        UserError: a command failed.
    """
    done = (out / DONE).read_text(encoding="utf-8").splitlines(keepends=True)
    for number, step in enumerate(steps):
        words = words_of(step.command, places)
        shown = shlex.join(words)
        print(f"\n[{number + 1}/{len(steps)}] {step.title}\n{shown}", flush=True)
        if done[number : number + 1] == [f"{shown}\n"]:
            print("already done, skipped", flush=True)
            continue
        del done[number:]  # their input changes now
        (out / DONE).write_text("".join(done), encoding="utf-8")
        shutil.rmtree(out / step.output, ignore_errors=True)
        started = time.monotonic()
        if status := subprocess.run(words, env=environment).returncode:
            raise UserError(f"step {number + 1}, {step.output}, failed with status {status}: see its output above")
        done.append(f"{shown}\n")
        (out / DONE).write_text("".join(done), encoding="utf-8")
        print(f"done in {time.monotonic() - started:.0f} s", flush=True)


def exits_table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Format a table with one line per exit: cost and error rates.

    Args:
        summaries: name of the exit -> its ``summary.json``.
    """
    header = ("exit", "layers", "parameters", "WER %", "CER %", "real-time factor")
    rows = [
        (
            who,
            f"{found['exit_layer']} of {found['layers']}",
            f"{found['parameters']:,}",
            f"{found['wer']:.2f}",
            f"{found['cer']:.2f}",
            f"{found['real_time_factor']:.4f}",
        )
        for who, found in summaries.items()
    ]
    return tabulate(rows, header, tablefmt="plain", disable_numparse=True, colalign=("left", *["right"] * 5))


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, run the steps, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd.demo",
        description=DESCRIPTION,
        epilog="example:\n  python -m fairseq_skd.demo --out /runs/demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("demo_out"), metavar="DIR", help="default: demo_out")
    out = parser.parse_args(arguments).out.absolute()
    pretrain = shipped_folder("pretrain")
    prepare_folder(out)
    started = time.monotonic()
    python = Path(sys.executable)  # not resolved: in a venv it is a link to a file outside
    threads = os.environ.get("OMP_NUM_THREADS") or str(min(MOST_THREADS, os.cpu_count() or 1))
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": threads}
    print(f"export PATH={shlex.quote(str(python.parent))}:$PATH OMP_NUM_THREADS={threads}")
    places = {"out": out, "pretrain": pretrain, "python": Path(python.name)}
    run_steps(STEPS, out, places, environment)
    summaries = {
        who: json.loads((out / f"decode-{who}" / "summary.json").read_text(encoding="utf-8"))
        for who in ("teacher", "student")
    }
    print(f"\n{exits_table(summaries)}")
    print(f"\ncurves, spikes, and utterances to listen to: {out / 'report.html'}")
    print(f"all results: {out} ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    sys.exit(run_command("fairseq_skd.demo", main))
