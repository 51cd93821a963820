"""``python -m fairseq_skd.align``: do teacher and student spike on the same frames? Metrics, figures, examples."""

import argparse
import sys
from collections.abc import Sequence

from omegaconf.errors import OmegaConfBaseException

from fairseq_skd.alignment.configuration import AlignSettings, describe_align_keys
from fairseq_skd.compat import compose, to_container
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.extras import require
from fairseq_skd.infer import quieten_libraries, quote_texts

_TEXTS = ("align.teacher_path", "align.history")
_EXAMPLE = """examples
the full model against its student:
  python -m fairseq_skd.align --config-dir config/align --config-name align \\
      task.data=/data/an4 common_eval.path=runs/skd/checkpoint_best.pt dataset.gen_subset=test
a separate teacher against the student that it taught:
  ... common_eval.path=runs/kd/checkpoint_best.pt align.teacher_path=runs/ctc/checkpoint_best.pt
agreement over a run whose checkpoints were kept (checkpoint.no_epoch_checkpoints=false):
  ... align.history=runs/skd

It writes align.json, offsets.png, history.png, and for each example spikes-<index>.png and example-<index>.flac.
task, common, common_eval and dataset have the keys of fairseq_skd.infer. The others, with what they are if not given:
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Arguments in, one call, a table out."""
    args = _parser().parse_intermixed_args(arguments)
    config = compose(args.config_dir, args.config_name, quote_texts(args.overrides, _TEXTS))
    try:
        values = to_container(config)
    except OmegaConfBaseException as error:
        raise UserError(f"{args.config_name}: {str(error).splitlines()[0]}") from error
    settings = AlignSettings.read(values)
    require(["matplotlib", "rapidfuzz", "scipy"], "analysis", "the alignment analysis")
    from fairseq_skd.alignment import results
    from fairseq_skd.alignment.analysis import analyse

    folder, found = analyse(settings)
    if "history" in found:
        print(f"\n{results.history_table(found['history'])}")
    for who in ("teacher", "student"):
        print(f"{'' if who == 'student' else chr(10)}{results.exit_name(who, found[who])}: {found[who]['checkpoint']}")
    print(f"\n{results.table(found)}\n\n{folder}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd.align",
        description="Compare where two exits spike, over a subset: teacher and student of one checkpoint, or of two.",
        epilog=_EXAMPLE + describe_align_keys(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-dir", "-cd", required=True, help="folder of the YAML, e.g. config/align")
    parser.add_argument("--config-name", "-cn", default="align", help="its name (align)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys to set, see below")
    return parser


if __name__ == "__main__":
    quieten_libraries()
    sys.exit(run_command("fairseq_skd.align", main))
