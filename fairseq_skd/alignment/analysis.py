"""The whole analysis: check all inputs, run the models, write the files."""

from pathlib import Path
from typing import Any

from fairseq_skd.alignment import output
from fairseq_skd.alignment.compare import compare_sides
from fairseq_skd.alignment.config import AlignSettings
from fairseq_skd.alignment.sides import choose_sides, kept_checkpoints
from fairseq_skd.files.disk import absolute, read_speakers
from fairseq_skd.files.progress import tracked

_EXAMPLES = 3  # drawn if align.examples is null


def analyse(settings: AlignSettings) -> tuple[Path, dict[str, Any]]:
    """Compare two exits and write the results.

    Returns:
        the results folder and the content of ``align.json``, without figures and examples.

    Raises:
        UserError: an input cannot be used.
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
