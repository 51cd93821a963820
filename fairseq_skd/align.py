"""``python -m fairseq_skd.align``: compare the frames on which teacher and student spike."""

import argparse
import sys
from collections.abc import Sequence

from fairseq_skd.alignment.config import AlignSettings
from fairseq_skd.cli import add_config_arguments, compose_values, quieten_libraries, quote_texts, shipped_folder
from fairseq_skd.errors import require, run_command

_INSTEAD = {"common_eval.model_overrides": "use align.layer or align.teacher_layer"}
_EXAMPLES = """\
examples
the full model and its student:
  python -m fairseq_skd.align task.data=/data/manifests common_eval.path=/runs/skd/checkpoint_best.pt \\
      dataset.gen_subset=test
a separate teacher and the student that it taught:
  python -m fairseq_skd.align task.data=/data/manifests common_eval.path=/runs/kd/checkpoint_best.pt \\
      align.teacher_path=/runs/ctc/checkpoint_best.pt
agreement during a run whose checkpoints were kept (checkpoint.no_epoch_checkpoints=false):
  python -m fairseq_skd.align task.data=/data/manifests align.history=/runs/skd

The command writes align.json, offsets.png, history.png, and per example spikes-<index>.png and example-<index>.flac.
Keys and their defaults:
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare two exits and print a table."""
    args = _parser().parse_intermixed_args(arguments)
    overrides = quote_texts(args.overrides, AlignSettings.free_texts())
    yamls = args.config_dir or shipped_folder("align")
    settings = AlignSettings.read(compose_values(yamls, args.config_name, overrides, _INSTEAD))
    require(["matplotlib", "rapidfuzz", "scipy"], "analysis", "the alignment analysis")
    from fairseq_skd.alignment import output
    from fairseq_skd.alignment.analysis import analyse

    folder, found = analyse(settings)
    if "history" in found:
        print(f"\n{output.history_table(found['history'])}")
    for who in ("teacher", "student"):
        print(f"{'' if who == 'student' else chr(10)}{output.exit_name(who, found[who])}: {found[who]['checkpoint']}")
    print(f"\n{output.table(found)}\n\n{folder}")
    if silent := [who for who in ("teacher", "student") if not found[f"{who}_spikes"]]:
        print(
            f"fairseq_skd.align: the {' and the '.join(silent)} emitted only blanks on every utterance, so the "
            f"agreement means nothing: train longer",
            file=sys.stderr,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd.align",
        description="Compare where two exits spike, over a subset: teacher and student of one checkpoint, or of two.",
        epilog=_EXAMPLES + AlignSettings.describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_arguments(parser, "align")
    return parser


if __name__ == "__main__":
    quieten_libraries()
    sys.exit(run_command("fairseq_skd.align", main))
