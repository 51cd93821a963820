"""``python -m fairseq_skd.infer``: decode a subset with a fine-tuned checkpoint, at the depth of teacher or student."""

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException
from tabulate import tabulate

from fairseq_skd.compat import compose, to_container
from fairseq_skd.decoding import multirun
from fairseq_skd.decoding.decode import decode
from fairseq_skd.decoding.settings import Settings, describe_keys
from fairseq_skd.errors import PartialResult, UserError, run_command
from fairseq_skd.files import absolute

_TEXTS = (
    "task.data",
    "task.label_dir",
    "common.user_dir",
    "common_eval.path",
    "common_eval.model_overrides",
    "common_eval.results_path",
    "dataset.gen_subset",
    "decoding.results_path",
    "decoding.lexicon",
    "decoding.lmpath",
)
_SHOWN = 20  # audio files that a message lists
_EXAMPLE = """example, the student of six layers on test.tsv:
  python -m fairseq_skd.infer --config-dir config/decode --config-name viterbi \\
      task.data=/data/an4 common_eval.path=checkpoints/checkpoint_best.pt \\
      dataset.gen_subset=test decoding.layer=6

weights of a language model, chosen on valid.tsv; a second call runs what is missing:
  python -m fairseq_skd.infer --config-dir config/decode --config-name kenlm --multirun --jobs 2 \\
      task.data=/data/an4 common_eval.path=checkpoints/checkpoint_best.pt dataset.gen_subset=valid \\
      decoding.lexicon=lexicon.txt decoding.lmpath=3gram.arpa decoding.lmweight=1,2,3 decoding.wordscore=-1,0

It writes hypo.word, hypo.units, ref.word, ref.units and summary.json. The keys, with what they are if not given:
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Arguments in, one call, one line out; a table with ``--multirun``."""
    args = _parser().parse_intermixed_args(arguments)
    if args.multirun:
        sweep(args)
        return
    folder, summary = decode(read_settings(args, quote_texts(args.overrides)))
    left_out = summary["not_decoded"]
    listed = f" of {summary['sentences'] + len(left_out)}" if left_out else ""
    print(
        f"WER {summary['wer']:.2f} % ({summary['word_errors']} errors in {summary['words']} words), "
        f"CER {summary['cer']:.2f} %, {summary['sentences']}{listed} sentences, exit {summary['exit_layer']} of "
        f"{summary['layers']} layers, real-time factor {summary['real_time_factor']:.4f}: {folder}"
    )
    if left_out:
        raise PartialResult(
            f"{_not_decoded(left_out)}; the error rates are of the other {summary['sentences']} sentences"
        )


def _not_decoded(files: Sequence[dict[str, Any]]) -> str:
    """Audio files that were left out; ``summary.json`` has all of them."""
    shown = "".join(f"\n  {one['file']}: {one['reason']}" for one in files[:_SHOWN])
    more = f"\n  and {len(files) - _SHOWN} more, see not_decoded in summary.json" if len(files) > _SHOWN else ""
    many = "1 audio file" if len(files) == 1 else f"{len(files)} audio files"
    return f"{many} could not be read, so not decoded:{shown}{more}\nreplace what is listed"


def read_settings(args: argparse.Namespace, overrides: Sequence[str]) -> Settings:
    """The configuration with overrides, checked."""
    config = compose(args.config_dir, args.config_name, overrides)
    try:
        values = to_container(config)
    except OmegaConfBaseException as error:
        raise UserError(f"{args.config_name}: {str(error).splitlines()[0]}") from error
    return Settings.read(values)


def sweep(args: argparse.Namespace) -> None:
    """All combinations of several values, all of them checked before the first is run; prints the table."""
    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs} is out of range, it is at least 1")
    combinations = multirun.combinations(quote_texts(args.overrides, several=True))
    given = read_settings(args, combinations[0][1])
    default = str(Path("decode", Path(args.config_name).stem))
    base = absolute(given.decoding.results_path or given.common_eval.results_path or default)
    runs = []
    for values, overrides in combinations:
        folder = base / multirun.folder_name(values)
        overrides += quote_texts([f"decoding.results_path={folder}", "common_eval.results_path=null"])
        arguments = ["--config-dir", args.config_dir, "--config-name", args.config_name, *overrides]
        runs.append(multirun.Run(values, arguments, read_settings(args, overrides), folder))
    rows, left_out = multirun.run_all(runs, base, args.jobs)
    shown = [{key: str(value) for key, value in row.items() if key != "folder"} for row in rows]
    print(tabulate(shown, "keys", tablefmt="plain", disable_numparse=True))
    print(f"{len(rows)} runs, lowest WER first: {base / multirun.TABLE}")
    if left_out:
        raise PartialResult(f"{_not_decoded(left_out)}; the error rates are of the other sentences")


def quote_texts(overrides: Sequence[str], more: Sequence[str] = (), several: bool = False) -> list[str]:
    """Quote paths and the like for Hydra's grammar, which refuses ``~``, accents, or a dict in Python's notation.

    Values that are quoted already, null, and interpolations stay as they are.

    Args:
        overrides: ``key=value``.
        more: keys that hold such texts beside those of this command.
        several: a comma stands between values, each of which is quoted.
    """
    quoted = []
    for override in overrides:
        key, sign, value = override.partition("=")
        plain = sign and key in (*_TEXTS, *more) and value not in ("", "null") and value[0] not in "'\"$"
        values = value.split(",") if several else [value]
        escaped = [part.replace("\\'", "'").replace("'", "\\'") for part in values]
        quoted.append(f"{key}=" + ",".join(f"'{part}'" for part in escaped) if plain else override)
    return quoted


def quieten_libraries() -> None:
    """Leave the terminal to progress bar, result and mistakes: fairseq's import sets logging to DEBUG."""
    logging.getLogger().setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch, of fairseq's weight_norm
    warnings.filterwarnings("ignore", message=r"[\s\S]*hydra\.cc/docs")  # hydra, of fairseq's @package _group_


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd.infer",
        description="Decode a subset with a fine-tuned skd_ctc checkpoint, at the depth of the full model or of a "
        "student: greedily (viterbi), or by beam search with a language model (kenlm, lexfree).",
        epilog=_EXAMPLE + describe_keys(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-dir", "-cd", required=True, help="folder of the YAML, e.g. config/decode")
    parser.add_argument("--config-name", "-cn", default="viterbi", help="its name (viterbi)")
    parser.add_argument(
        "--multirun",
        "-m",
        action="store_true",
        help="values with commas between are tried one by one, in all combinations",
    )
    parser.add_argument("--jobs", type=int, default=1, help="with --multirun: processes at a time (1)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys to set, see below")
    return parser


if __name__ == "__main__":
    quieten_libraries()
    sys.exit(run_command("fairseq_skd.infer", main))
