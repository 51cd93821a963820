r"""Seven languages: from a table with audio to a student, transcripts, figures and a report.

python -m experiments.languages --out /runs/languages    # all, under 20 minutes on 2 cores
python -m experiments.languages --out /runs/two --languages de,hi --updates 200

espeak-ng speaks the sentences of results/languages/sentences.yaml. One small HuBERT is pretrained
on the speech of all chosen languages. Then each language is prepared, fine-tuned with SKD, decoded,
transcribed and compared by the package's own commands. DIR/<language>/log.txt has the output of the
commands, DIR/<language>/report.html its page. Steps that an earlier call finished in DIR are
skipped.

At the end DIR/languages.json, for results/languages/, and a table. Needs the extra ``demo``.
"""

import argparse
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tabulate import tabulate

from experiments import languages_corpus
from experiments.folder import current_commit
from experiments.grid import REPOSITORY
from experiments.languages_corpus import TABLE, Language, read_languages
from experiments.processes import Processes
from fairseq_skd.cli import shipped_folder
from fairseq_skd.demo.__main__ import DONE, MOST_THREADS, Step, prepare_folder, words_of
from fairseq_skd.demo.corpus import open_synthesiser
from fairseq_skd.errors import UserError, require, run_command
from fairseq_skd.files.disk import replacing
from fairseq_skd.files.progress import tracked
from fairseq_skd.files.workers import available_cpus

UPDATES, PRETRAINING = 1000, 1000
LOG, RESULT = "log.txt", "languages.json"
HEADER = (
    *("language", "training utterances", "symbols"),
    *("teacher, CER / WER %", "student, CER / WER %"),
    *("teacher's spikes found by the student %", "matched spikes on the same frame %"),
)
TEACHER, STUDENT = 4, 2  # layers

_MANIFEST = Step(
    "manifest",
    "check the table and write the manifests",
    """{python} -m fairseq_skd.manifest table {out}/validated.tsv --audio-root {out}/audio --out {out}/manifest
    --path-column path --text-column sentence --split-column split --speaker-column client_id
    --language {language} --normalize lower,punctuation""",
)
_PRETRAINING = (
    Step(
        "labels",
        "label the frames of all speech",
        "{python} -m fairseq_skd.demo.pretraining_labels {out}/speech --out {out}/labels --max-frames 200000",
    ),
    Step(
        "pretrain",
        "pretrain the encoder",
        """{python} -m fairseq_skd.train --config-dir {pretrain} hubert_tiny common.cpu=true task.data={out}/speech
        task.label_dir={out}/labels optimization.max_update={pretraining} hydra.run.dir={out}/pretrain""",
    ),
)
_STEPS = (
    _MANIFEST,
    # As in the demo: small batches without dropout. Units choose the best checkpoint: a sentence of
    # Mandarin is one word.
    Step(
        "finetune",
        "fine-tune",
        """{python} -m fairseq_skd.train hubert_mini common.cpu=true task.data={out}/manifest
        model.w2v_path={encoder} model.student_layers=[2] model.blank_weight={blank_weight}
        model.dropout_input=0 model.final_dropout=0 model.dropout=0 model.attention_dropout=0 model.activation_dropout=0
        dataset.max_tokens=160000 dataset.validate_interval=4 checkpoint.save_interval=4
        checkpoint.best_checkpoint_metric=student_uer
        optimization.lr=[3e-3] optimization.max_update={updates} hydra.run.dir={out}/finetune""",
    ),
    *(
        Step(
            f"decode-{who}",
            f"decode with the {who}",
            f"""{{python}} -m fairseq_skd.infer task.data={{out}}/manifest common.cpu=true dataset.gen_subset=test
            common_eval.path={{out}}/finetune/checkpoints/checkpoint_best.pt
            decoding.layer={layer} decoding.times=true common_eval.results_path={{out}}/decode-{who}""",
        )
        for who, layer in (("teacher", TEACHER), ("student", STUDENT))
    ),
    Step(
        "transcripts",
        "transcribe",
        """{python} -m fairseq_skd.transcribe {out}/finetune/checkpoints/checkpoint_best.pt {out}/manifest/test.tsv
        --layer 2 --device cpu --output srt --out {out}/transcripts""",
    ),
    Step(
        "align",
        "compare the spikes",
        """{python} -m fairseq_skd.align task.data={out}/manifest common.cpu=true dataset.gen_subset=test
        common_eval.path={out}/finetune/checkpoints/checkpoint_best.pt common_eval.results_path={out}/align""",
    ),
    Step("report.html", "write the page", "{python} -m fairseq_skd.report {out} --out {out}/report.html"),
)


class Runner:
    """Runs the steps of several folders, ``jobs`` at a time.

    Args:
        jobs: folders at a time. They share the cores.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs, self._processes = jobs, Processes()
        python = Path(sys.executable)  # not resolved: in a venv it is a link to a file outside
        paths = {"PYTHONPATH": str(REPOSITORY), "PATH": f"{python.parent}:"}
        joined = {name: f"{first}{os.pathsep}{os.environ.get(name, '')}" for name, first in paths.items()}
        self._environment = {**os.environ, **joined}

    def run(self, steps: Sequence[Step], folders: Mapping[Path, Mapping[str, object]]) -> None:
        """Run the unfinished steps of each folder, in order.

        Args:
            steps: commands.
            folders: folder -> fillings of the commands, beside ``python`` and ``out``.

        Raises:
            UserError: a command failed. No other is started.
        """
        jobs = min(self._jobs, len(folders))
        threads = max(1, min(MOST_THREADS, available_cpus() // jobs))
        environment = {"OMP_NUM_THREADS": str(threads), **self._environment}
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(self._run_steps, steps, out, environment, own) for out, own in folders.items()]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self._processes.end()  # first: the pool waits for its threads, and they wait for the commands
                raise

    def _run_steps(
        self, steps: Sequence[Step], out: Path, environment: Mapping[str, str], places: Mapping[str, object]
    ) -> None:
        filled = {**places, "python": "python", "out": out}
        done = (out / DONE).read_text(encoding="utf-8").splitlines(keepends=True)
        for number, step in enumerate(steps):
            words = words_of(step.command, filled)
            shown = shlex.join(words)
            if done[number : number + 1] == [f"{shown}\n"]:
                continue
            del done[number:]  # their input changes now
            (out / DONE).write_text("".join(done), encoding="utf-8")
            output = out / step.output
            output.unlink(missing_ok=True) if output.is_file() else shutil.rmtree(output, ignore_errors=True)
            begun = time.monotonic()
            with (out / LOG).open("a", encoding="utf-8") as log:
                log.write(f"\n{shown}\n")
                log.flush()
                ended = self._processes.run(words, stdout=log, stderr=subprocess.STDOUT, env=environment)
            if ended is None:
                return
            if ended.returncode != 0:
                raise UserError(f"{out.name}: {step.title}: status {ended.returncode}, see the end of {out / LOG}")
            done.append(f"{shown}\n")
            (out / DONE).write_text("".join(done), encoding="utf-8")
            print(f"{out.name}: {step.title}: done in {time.monotonic() - begun:.0f} s", flush=True)


def speak(languages: Sequence[Language], out: Path) -> None:
    """Write table and audio of each language that has none yet."""
    missing = [language for language in languages if not (out / language.code / TABLE).is_file()]
    with open_synthesiser() as synthesiser:
        for language in tracked(missing, "speaking", "language"):
            languages_corpus.write_corpus(language, out / language.code, synthesiser)


def join_speech(folders: Sequence[Path], out: Path) -> None:
    """Write ``train.tsv`` and ``valid.tsv`` of the audio of all folders, for pretraining."""
    root = out.parent
    for split in ("train", "valid"):
        lines = [str(root)]
        for folder in folders:
            audio, *rows = (folder / "manifest" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
            lines += [f"{Path(audio).relative_to(root)}/{row}" for row in rows]
        with replacing(out / "speech" / f"{split}.tsv") as beside:
            beside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def figures(language: Language, folder: Path) -> dict[str, Any]:
    """Collect the figures of one language from the files that the commands wrote."""

    def read(name: str) -> dict[str, Any]:
        return json.loads((folder / name).read_text(encoding="utf-8"))

    manifest, align = folder / "manifest", read("align/align.json")
    kept = ("cer", "wer", "character_errors", "characters", "word_errors", "words")
    return {
        "language": language.name,
        "code": language.code,
        "training_utterances": len((manifest / "train.tsv").read_text(encoding="utf-8").splitlines()) - 1,
        "test_utterances": align["utterances"],
        "symbols": len((manifest / "dict.ltr.txt").read_text(encoding="utf-8").splitlines()),
        **{who: {key: read(f"decode-{who}/summary.json")[key] for key in kept} for who in ("teacher", "student")},
        "spike_disagreement": align["spike_disagreement"],
        "same_frame": align["offset"]["within_ms"]["0"],
    }


def rows(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Format one row per language, with the columns :data:`HEADER`."""
    return [
        (
            one["language"],
            f"{one['training_utterances']}",
            f"{one['symbols']}",
            *(f"{one[who]['cer']:.1f} / {one[who]['wer']:.1f}" for who in ("teacher", "student")),
            _percent(one["spike_disagreement"]["value"], lambda share: 1 - share),
            _percent(one["same_frame"], float),
        )
        for one in found
    ]


def _percent(share: float | None, turned: Any) -> str:
    return "–" if share is None else f"{100 * turned(share):.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the languages and print the table."""
    known = read_languages()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="new folder, or one of an earlier call")
    add("--languages", default=",".join(known), metavar="CODES", help="default: %(default)s")
    add("--updates", type=int, default=UPDATES, metavar="N", help="of each fine-tuning (default: %(default)s)")
    add("--pretraining", type=int, default=PRETRAINING, metavar="N", help="updates (default: %(default)s)")
    add("--jobs", type=int, default=min(2, available_cpus()), metavar="N", help="languages at a time (%(default)s)")
    given = parser.parse_args(arguments)
    codes = given.languages.split(",")
    if unknown := [code for code in codes if code not in known]:
        raise UserError(f"--languages: there is no {unknown[0] or 'empty name'}; choose of {','.join(known)}")
    for name in ("updates", "pretraining", "jobs"):
        if getattr(given, name) < 1:
            raise UserError(f"--{name} {getattr(given, name)} is out of range: give at least 1")
    require(["espeakng_loader", "kaldi_native_fbank", "sklearn", "matplotlib"], "demo", "experiments.languages")
    begun, out, languages = time.monotonic(), given.out.absolute(), [known[code] for code in dict.fromkeys(codes)]
    commit = current_commit()
    prepare_folder(out)
    folders = [out / language.code for language in languages]
    shared = out / f"encoder-{'+'.join(language.code for language in languages)}-{given.pretraining}"
    speak(languages, out)
    for folder in (*folders, shared):
        folder.mkdir(exist_ok=True)
        (folder / DONE).touch()
    runner, encoder = Runner(given.jobs), shared / "pretrain" / "checkpoints" / "checkpoint_last.pt"
    places = {
        folder: {
            "language": language.code,
            "blank_weight": language.blank_weight,
            "encoder": encoder,
            "updates": given.updates,
        }
        for language, folder in zip(languages, folders, strict=True)
    }
    runner.run([_MANIFEST], places)
    join_speech(folders, shared)
    runner.run(_PRETRAINING, {shared: {"pretrain": shipped_folder("pretrain"), "pretraining": given.pretraining}})
    runner.run(_STEPS, places)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {
        "commit": commit,
        "updates": given.updates,
        "pretraining": given.pretraining,
        "seconds": round(time.monotonic() - begun),
        "cpu_seconds": round(used.ru_utime + used.ru_stime),
        "jobs": given.jobs,
        "languages": [figures(language, folder) for language, folder in zip(languages, folders, strict=True)],
    }
    with replacing(out / RESULT) as beside:
        beside.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\n{tabulate(rows(found['languages']), HEADER, tablefmt='plain', disable_numparse=True)}")
    print(f"\n{out / RESULT}: {found['seconds']} s, {found['cpu_seconds']} CPU s")


if __name__ == "__main__":
    sys.exit(run_command("languages", main))
