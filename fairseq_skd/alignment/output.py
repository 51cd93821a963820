"""Write the results: ``align.json``, figures, audio of examples, and tables for the terminal."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile
import torch
from tabulate import tabulate

import fairseq_skd
from fairseq_skd.alignment import figures, totals
from fairseq_skd.alignment.compare import Compared
from fairseq_skd.alignment.config import AlignSettings
from fairseq_skd.alignment.figures import Example, spike_records
from fairseq_skd.alignment.fonts import showing
from fairseq_skd.alignment.sides import Side, Sides
from fairseq_skd.files.disk import replacing
from fairseq_skd.files.progress import tracked
from fairseq_skd.files.waveforms import read_audio
from fairseq_skd.scoring.bootstrap import LEVEL, resampling
from fairseq_skd.scoring.transcripts import write_summary


def metrics(
    sides: Sides, compared: Compared, settings: AlignSettings, speakers: Sequence[str] | None
) -> dict[str, Any]:
    """Compute the metrics of docs/alignment.md with their intervals, as in ``align.json``."""
    counts = totals.utterance_counts(compared.agreements)
    frame_ms = 1000 * sides.student.recognizer.frame_seconds
    who = (("teacher", sides.teacher, compared.teacher), ("student", sides.student, compared.student))
    return {
        **{name: _exit(side) | certainty.shares() for name, side, certainty in who},
        "frame_ms": frame_ms,
        "frames": sum(counts["frames"]),
        "teacher_spikes": sum(counts["teacher_spikes"]),
        "student_spikes": sum(counts["student_spikes"]),
        **totals.disagreements(counts, settings.align.resamples, settings.common.seed, speakers),
        "offset": totals.offsets(compared.agreements, frame_ms),
    }


def details(
    sides: Sides, compared: Compared, settings: AlignSettings, speakers: Sequence[str] | None
) -> dict[str, Any]:
    """Collect what ``align.json`` holds besides metrics: sources, counts per symbol, utterance."""
    data = sides.data
    return {
        "subset": settings.dataset.gen_subset,
        "manifest": str(data.subset.manifest),
        "utterances": len(data.subset.names),
        "interval": {
            "level": LEVEL,
            **resampling(speakers),
            "resamples": settings.align.resamples,
            "seed": settings.common.seed,
        },
        "by_symbol": totals.by_symbol(compared.agreements, data.dictionary.symbols),
        "by_utterance": {"name": data.subset.names, **totals.utterance_counts(compared.agreements)},
        "precision": str(sides.student.recognizer.dtype).removeprefix("torch."),
        "max_tokens": settings.dataset.max_tokens,
        "batch_size": settings.dataset.batch_size,
        "versions": {"fairseq_skd": fairseq_skd.__version__, "torch": torch.__version__},
    }


def examples(sides: Sides, compared: Compared) -> list[Example]:
    """Collect the utterances whose posteriors were kept, with audio and text."""
    data, seconds = sides.data, sides.student.recognizer.frame_seconds
    assert data.reference is not None  # align refuses a subset without labels
    found = []
    for index, posteriors in sorted(compared.posteriors.items()):
        waveform, sample_rate = read_audio(data.subset.path(index), listed=True)
        teacher, student = spike_records(posteriors, data.dictionary.symbols)
        name, text = data.subset.names[index], data.reference.words[index]
        found.append(Example(index, name, text, waveform, sample_rate, seconds, posteriors, teacher, student))
    return found


def exit_name(who: str, described: dict[str, Any]) -> str:
    """Name an exit in figures and tables."""
    return f"{who}, {described['exit_layer']} of {described['layers']} layers"


def write(folder: Path, found: dict[str, Any], chosen: Sequence[Example]) -> None:
    """Write figures and audio, then ``align.json``; without that file the folder is incomplete.

    Args:
        folder: an existing folder.
        found: metrics, details and, if there is one, ``history``.
        chosen: the examples.
    """
    names = (exit_name("teacher", found["teacher"]), exit_name("student", found["student"]))
    summary = folder / "align.json"
    summary.unlink(missing_ok=True)
    with showing(text for example in chosen for text in figures.texts_of(example)):
        records = [_write_example(folder, example, names) for example in tracked(chosen, "drawing spikes", "utterance")]
    drawn = {}
    if found["offset"]["matched"]:
        drawn["offsets"] = "offsets.png"
        _save(figures.draw_offsets(found["offset"], found["frame_ms"]), folder / drawn["offsets"])
    if found.get("history"):
        drawn["history"] = "history.png"
        _save(figures.draw_history(found["history"]), folder / drawn["history"])
    write_summary(summary, {**found, "figures": drawn, "examples": records})


def _write_example(folder: Path, example: Example, names: tuple[str, str]) -> dict[str, Any]:
    figure, audio = f"spikes-{example.index}.png", f"example-{example.index}.flac"
    _save(figures.draw_spikes(example, names), folder / figure)
    encoded = io.BytesIO()
    soundfile.write(encoded, example.waveform.clip(-1, 1), example.sample_rate, subtype="PCM_16", format="FLAC")
    _write(folder / audio, encoded)
    return {
        "index": example.index,
        "name": example.name,
        "text": example.text,
        "seconds": round(example.seconds, 4),
        "figure": figure,
        "audio": audio,
        "teacher": example.teacher,
        "student": example.student,
    }


def table(found: dict[str, Any]) -> str:
    """Format the metrics for the terminal, with a line on how the intervals were made."""
    offset = found["offset"]
    rows = [
        ("frame disagreement", *_rate(found["frame_disagreement"]), f"of {found['frames']:,} frames"),
        ("spike disagreement", *_rate(found["spike_disagreement"]), f"of {found['teacher_spikes']:,} teacher spikes"),
        ("spike miss", *_rate(found["spike_miss"]), "the student has the symbol on none of the frames"),
        ("spike offset, mean", _ms(offset["mean_ms"]), "", f"of {offset['matched']:,} matched spikes"),
        ("spike offset, median", _ms(offset["median_ms"]), "", ""),
        ("spike offset, signed mean", _ms(offset["signed_mean_ms"]), "", "negative: the student is earlier"),
        *(
            ("on the same frame" if limit == "0" else f"within {limit} ms", _percent(share), "", "")
            for limit, share in offset["within_ms"].items()
        ),
        *(
            (f"{what}, {who}", form(found[who][key]), "", "")
            for key, what, form in (
                ("blank_share", "blank frames", _percent),
                ("highest_posterior", "highest posterior", _percent),
                ("entropy_bits", "entropy", _bits),
            )
            for who in ("teacher", "student")
        ),
    ]
    interval = found["interval"]
    header = ("", "value", f"{100 * interval['level']:g} % interval", "")
    columns = ("left", "right", "right", "left")
    lines = tabulate(rows, header, tablefmt="plain", disable_numparse=True, colalign=columns)
    return f"{lines}\n\nintervals: bootstrap over {_drawn(interval)}"


def history_table(history: Sequence[dict[str, Any]]) -> str:
    """Format agreement against updates for the terminal."""
    rows = [
        (
            f"{entry['updates']:,}",
            *(_percent(entry[key]["value"]) for key in ("frame_disagreement", "spike_disagreement", "spike_miss")),
            *(_percent(entry[who]["blank_share"]) for who in ("teacher", "student")),
            _ms(entry["offset"]["mean_ms"]),
        )
        for entry in history
    ]
    header = ("updates", "frame dis.", "spike dis.", "spike miss", "blank teacher", "blank student", "offset")
    return tabulate(rows, header, tablefmt="plain", disable_numparse=True, colalign=["right"] * len(header))


def _drawn(interval: dict[str, Any]) -> str:
    if interval["resampled"] == "speakers":
        return f"{interval['speakers']} speakers"
    why = "there is only one speaker" if interval["speakers"] else "the manifest names no speakers"
    return f"utterances, because {why}"


def _exit(side: Side) -> dict[str, Any]:
    return {
        "checkpoint": side.recognizer.path,
        "exit_layer": side.layer,
        "layers": side.recognizer.depth,
    }


def _rate(interval: dict[str, float | None]) -> tuple[str, str]:
    low, high = interval["low"], interval["high"]
    between = "" if low is None or high is None else f"{100 * low:.2f} to {100 * high:.2f}"
    return _percent(interval["value"]), between


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def _bits(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f} bits"


def _save(figure: Any, path: Path) -> None:
    encoded = io.BytesIO()
    figure.savefig(encoded, dpi=figures.DPI, format="png")
    _write(path, encoded)


def _write(path: Path, encoded: io.BytesIO) -> None:
    """Write a file encoded in memory: the libraries' own errors do not say why a disk fails."""
    with replacing(path) as beside:
        beside.write_bytes(encoded.getbuffer())
