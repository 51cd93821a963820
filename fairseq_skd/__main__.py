"""``python -m fairseq_skd`` prints the path to give to ``common.user_dir``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

_TOOLS = """\
tools, each with --help
  python -m fairseq_skd.manifest     from recordings and transcripts to fairseq's manifests
  python -m fairseq_skd.train        fine-tune with a recipe
  python -m fairseq_skd.infer        decode a subset: transcripts and error rates
  python -m fairseq_skd.transcribe   audio files to text, subtitles, words with times
  python -m fairseq_skd.score        word and character error rates of any two transcripts
  python -m fairseq_skd.align        compare the frames on which teacher and student spike
  python -m fairseq_skd.report       write a page about a folder of runs
  python -m fairseq_skd.export       write one exit for other programs, such as transformers
  python -m fairseq_skd.ngram        estimate a language model from transcripts
  python -m fairseq_skd.demo         all of it on a small synthetic corpus, in minutes
  python -m fairseq_skd.env          what a bug report needs

example:
  fairseq-hydra-train --config-dir /data/configs --config-name hubert_mini \\
      common.user_dir="$(python -m fairseq_skd)" task.data=/data/manifests model.w2v_path=/models/hubert_mini.pt
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the absolute path of this package."""
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd",
        description="Print the path of the user dir, for common.user_dir of fairseq's own commands.",
        epilog=_TOOLS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)
    print(Path(__file__).resolve().parent)


if __name__ == "__main__":
    main()
