"""The whole analysis: everything is checked, then the models run, then the files are written."""

from pathlib import Path
from typing import Any

from fairseq_skd.alignment import output
from fairseq_skd.alignment.compare import compare_sides, kept_checkpoints
from fairseq_skd.alignment.config import AlignSettings
from fairseq_skd.alignment.sides import choose_sides
from fairseq_skd.files.disk import absolute, read_speakers
from fairseq_skd.files.progress import tracked

_EXAMPLES = 3  # where none are named


def analyse(settings: AlignSettings) -> tuple[Path, dict[str, Any]]:
    """Compare two exits and write the results.

    Returns:
        the folder of the results and what ``align.json`` says of the metrics.

    Raises:
        UserError: anything that cannot be used, see the modules of this package.
    """
    keys = settings.align
    kept = kept_checkpoints(absolute(keys.history)) if keys.history is not None else []
    path = settings.common_eval.path
    shown = absolute(path) if path else kept[-1][1]
    sides = choose_sides(settings, str(shown))
    speakers = read_speakers(sides.data.subset.manifest)
    examples = keys.examples
    if examples is None:
        examples = list(range(min(_EXAMPLES, len(sides.data.subset.names))))
    compared = compare_sides(sides, settings.dataset, examples)
    measured = output.metrics(sides, compared, settings, speakers)
    found = measured | output.details(sides, compared, settings, speakers)
    if kept:
        found["history"] = [
            {"updates": updates, **(measured if checkpoint == shown else _measure(settings, checkpoint, speakers))}
            for updates, checkpoint in tracked(kept, "measuring the history", "checkpoint")
        ]
    output.write(sides.folder, found, output.examples(sides, compared))
    return sides.folder, found


def _measure(settings: AlignSettings, checkpoint: Path, speakers: list[str] | None) -> dict[str, Any]:
    sides = choose_sides(settings, str(checkpoint))
    return output.metrics(sides, compare_sides(sides, settings.dataset), settings, speakers)
