"""``python -m fairseq_skd.manifest``: from recordings and transcripts to fairseq's manifests."""

import sys

from fairseq_skd.corpora.arguments import labels, parser, read_corpus
from fairseq_skd.corpora.preparation import Options, prepare
from fairseq_skd.corpora.summary import summary
from fairseq_skd.errors import UserError, run_command


def main(arguments: list[str] | None = None) -> None:
    """Run the command on ``arguments`` (default: those of the process)."""
    given = parser().parse_args(arguments)
    chosen = labels(given)
    chosen.check()
    options = Options(given.jobs, given.resample, given.decode, given.force, given.normalize, chosen)
    try:
        prepared = prepare(read_corpus(given), given.out, options)
    except OSError as error:
        raise UserError(
            f"{error.filename or given.out}: {error.strerror or error}; {given.out} is as it was"
        ) from error
    print(summary(prepared, given.out))


if __name__ == "__main__":
    sys.exit(run_command("fairseq_skd.manifest", main))
