"""``python -m fairseq_skd.infer``: decode a subset with a fine-tuned checkpoint, at the depth of teacher or student."""

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence

from omegaconf.errors import OmegaConfBaseException

from fairseq_skd.compat import compose, to_container
from fairseq_skd.decoding.decode import decode
from fairseq_skd.decoding.settings import Settings, describe_keys
from fairseq_skd.errors import UserError, run_command

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
_EXAMPLE = """example, the student of six layers on test.tsv:
  python -m fairseq_skd.infer --config-dir config/decode --config-name viterbi \\
      task.data=/data/an4 common_eval.path=checkpoints/checkpoint_best.pt \\
      dataset.gen_subset=test decoding.layer=6

It writes hypo.word, hypo.units, ref.word, ref.units and summary.json. The keys, with what they are if not given:
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Arguments in, one call, one line out."""
    args = _parser().parse_intermixed_args(arguments)
    config = compose(args.config_dir, args.config_name, quote_texts(args.overrides))
    try:
        values = to_container(config)
    except OmegaConfBaseException as error:
        raise UserError(f"{args.config_name}: {str(error).splitlines()[0]}") from error
    folder, summary = decode(Settings.read(values))
    print(
        f"WER {summary['wer']:.2f} % ({summary['word_errors']} errors in {summary['words']} words), "
        f"CER {summary['cer']:.2f} %, {summary['sentences']} sentences, exit {summary['exit_layer']} of "
        f"{summary['layers']} layers, real-time factor {summary['real_time_factor']:.4f}: {folder}"
    )


def quote_texts(overrides: Sequence[str]) -> list[str]:
    """Quote paths and the like for Hydra's grammar, which refuses ``~``, accents, or a dict in Python's notation.

    Values that are quoted already, null, and interpolations stay as they are.
    """
    quoted = []
    for override in overrides:
        key, sign, value = override.partition("=")
        plain = sign and key in _TEXTS and value not in ("", "null") and value[0] not in "'\"$"
        escaped = value.replace("\\'", "'").replace("'", "\\'")
        quoted.append(f"{key}='{escaped}'" if plain else override)
    return quoted


def quieten_libraries() -> None:
    """Leave the terminal to progress bar, result and mistakes: fairseq's import sets logging to DEBUG."""
    logging.getLogger().setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch, of fairseq's weight_norm
    warnings.filterwarnings("ignore", message=r"[\s\S]*hydra\.cc/docs")  # hydra, of fairseq's @package _group_


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd.infer",
        description="Decode a subset with a fine-tuned skd_ctc checkpoint: greedy CTC at the depth of the full model "
        "or of a student.",
        epilog=_EXAMPLE + describe_keys(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-dir", "-cd", required=True, help="folder of the YAML, e.g. config/decode")
    parser.add_argument("--config-name", "-cn", default="viterbi", help="its name (viterbi)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys to set, see below")
    return parser


if __name__ == "__main__":
    quieten_libraries()
    sys.exit(run_command("fairseq_skd.infer", main))
