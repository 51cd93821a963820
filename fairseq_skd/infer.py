"""``python -m fairseq_skd.infer``: decode a subset at one exit of a fine-tuned checkpoint."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from fairseq_skd.cli import add_config_arguments, compose_values, quieten_libraries, quote_texts, shipped_folder
from fairseq_skd.decoding import multirun
from fairseq_skd.decoding.config import Settings
from fairseq_skd.decoding.decode import decode
from fairseq_skd.errors import PartialResult, UserError, run_command
from fairseq_skd.files.disk import absolute
from fairseq_skd.scoring.leading import CER, leads

_INSTEAD = {
    "common_eval.model_overrides": "use decoding.layer",
    "decoding.results_path": "use common_eval.results_path",
}
_SHOWN = 20  # most audio files that a message lists
_EXAMPLES = """\
examples
the student of six layers on test.tsv:
  python -m fairseq_skd.infer task.data=/data/manifests common_eval.path=/runs/skd/checkpoint_best.pt \\
      dataset.gen_subset=test decoding.layer=6
weights of a language model, chosen on valid.tsv; a second call runs what is missing:
  python -m fairseq_skd.infer --config-name kenlm --multirun --jobs 2 task.data=/data/manifests \\
      common_eval.path=/runs/skd/checkpoint_best.pt dataset.gen_subset=valid \\
      decoding.lexicon=/data/manifests/lexicon.txt decoding.lmpath=/data/manifests/3gram.arpa \\
      decoding.lmweight=1,2,3 decoding.wordscore=-1,0

The command writes hypo.word, hypo.units, ref.word, ref.units and summary.json; with decoding.times=true also hypo.ctm.
A subset without labels is decoded without ref.word, ref.units and error rates. Keys and their defaults:
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Decode and print one line, or with ``--multirun`` a table."""
    args = _parser().parse_intermixed_args(arguments)
    if args.multirun:
        sweep(args)
        return
    folder, summary = decode(_read(args, quote_texts(args.overrides, Settings.free_texts())))
    left_out = summary["not_decoded"]
    listed = f" of {summary['sentences'] + len(left_out)}" if left_out else ""
    rates = "no references, "
    if "wer" in summary:
        first, many, second = ("cer", "character", "wer") if leads(summary) == CER else ("wer", "word", "cer")
        rates = (
            f"{first.upper()} {summary[first]:.2f} % ({summary[f'{many}_errors']} errors in {summary[f'{many}s']} "
            f"{many}s), {second.upper()} {summary[second]:.2f} %, "
        )
    print(
        f"{rates}{summary['sentences']}{listed} sentences, exit {summary['exit_layer']} of "
        f"{summary['layers']} layers, real-time factor {summary['real_time_factor']:.4f}: {folder}"
    )
    if left_out:
        about = "error rates are" if "wer" in summary else "transcripts are"
        raise PartialResult(f"{_not_decoded(left_out)}; the {about} of the other {summary['sentences']} sentences")


def _not_decoded(files: Sequence[dict[str, Any]]) -> str:
    """List the audio files that were left out; ``summary.json`` has all of them."""
    shown = "".join(f"\n  {one['file']}: {one['reason']}" for one in files[:_SHOWN])
    more = f"\n  and {len(files) - _SHOWN} more, see not_decoded in summary.json" if len(files) > _SHOWN else ""
    many = "1 audio file" if len(files) == 1 else f"{len(files)} audio files"
    return f"{many} could not be read and were not decoded:{shown}{more}\nreplace these files"


def _read(args: argparse.Namespace, overrides: Sequence[str]) -> Settings:
    yamls = args.config_dir or shipped_folder("decode")
    return Settings.read(compose_values(yamls, args.config_name, overrides, _INSTEAD))


def sweep(args: argparse.Namespace) -> None:
    """Decode with all combinations of several values and print a table.

    All combinations are checked before the first one runs.
    """
    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs} is out of range, it is at least 1")
    texts = Settings.free_texts()
    combinations = multirun.combinations(quote_texts(args.overrides, texts, several=True))
    given = _read(args, combinations[0][1])
    default = str(Path("decode", Path(args.config_name).stem))
    base = absolute(given.common_eval.results_path or default)
    runs = []
    for values, overrides in combinations:
        folder = base / multirun.folder_name(values)
        overrides += quote_texts([f"common_eval.results_path={folder}"], texts)
        runs.append(multirun.Run(values, _read(args, overrides), folder))
    rows, left_out = multirun.run_all(runs, base, args.jobs)
    shown = [{key: str(value) for key, value in row.items() if key != "folder"} for row in rows]
    print(tabulate(shown, "keys", tablefmt="plain", disable_numparse=True))
    print(f"{len(rows)} runs, lowest {next(iter(rows[0])).upper()} first: {base / multirun.TABLE}")
    if left_out:
        raise PartialResult(f"{_not_decoded(left_out)}; the error rates are of the other sentences")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd.infer",
        description="Decode a subset with a fine-tuned skd_ctc checkpoint, at the depth of the full model or of a "
        "student: greedily (viterbi), or by beam search with a language model (kenlm, lexfree).",
        epilog=_EXAMPLES + Settings.describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_arguments(parser, "viterbi", ("kenlm", "lexfree"))
    parser.add_argument(
        "--multirun",
        "-m",
        action="store_true",
        help="decode with each value of key=a,b, in all combinations",
    )
    parser.add_argument("--jobs", type=int, default=1, help="with --multirun: parallel processes (default: 1)")
    return parser


if __name__ == "__main__":
    quieten_libraries()
    sys.exit(run_command("fairseq_skd.infer", main))
