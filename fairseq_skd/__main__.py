"""``python -m fairseq_skd`` prints the path to give to ``common.user_dir``."""

import argparse
from pathlib import Path


def main() -> None:
    """Print the absolute path of this package."""
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd",
        description="Print the path to give to fairseq-hydra-train: "
        'fairseq-hydra-train common.user_dir="$(python -m fairseq_skd)" ...',
        epilog="The tools: python -m fairseq_skd.manifest, .infer, .align, .report, .demo; each has --help.",
    )
    parser.parse_args()
    print(Path(__file__).resolve().parent)


if __name__ == "__main__":
    main()
