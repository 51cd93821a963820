"""``python -m fairseq_skd.score``: compute WER and CER of two transcripts."""

import argparse
import json
import re
import sys
import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from fairseq_skd.corpora.languages import checked_language
from fairseq_skd.corpora.normalization import chosen_steps, normalize, punctuation
from fairseq_skd.corpora.pairing import UNMATCHED, Pairs, find_speakers, pair
from fairseq_skd.corpora.transcripts import FORMATS, Source, Transcripts, read_transcripts
from fairseq_skd.errors import UserError, require, run_command, shown
from fairseq_skd.files.disk import replacing
from fairseq_skd.scoring.edits import Aligned
from fairseq_skd.scoring.leading import CER, WER, leads
from fairseq_skd.scoring.scores import Scores, compare, score_texts, show_alignments, summarize

_SHOWN = 10  # substitutions on the terminal
_DESCRIPTION = """\
Compute word and character error rates of HYP against REF, with 95 % intervals.

Formats are told by suffix and content; the two files may differ:
  text    one utterance per line, without names
  trn     words (utterance); also hypo.word and ref.word of fairseq_skd.infer
  kaldi   utterance words
  jsonl   one object per line: text (HYP: first pred_text), and audio, path, audio_filepath, id or utt_id
  table   TSV or CSV with these columns

Utterances are paired by name, else by line. The name of an audio file is its stem. Errors and lengths are added up over
all utterances, then divided. A space between words counts as one character, as in summary.json of fairseq_skd.infer.
CER leads, and characters are aligned, where the script of REF does not separate words by spaces.
"""
_EPILOG = """\
--normalize takes, in any order:
  upper, lower  upper or lower case, by the rules of the language
  punctuation   apostrophes of all kinds become '; hyphens, dashes and slashes become spaces; other punctuation goes
  digits        cardinal numbers become words of the language; years, times, ordinals and decimals stay
With any step, texts are also changed to Unicode's form NFC, last.

examples:
  python -m fairseq_skd.score /runs/skd/test6/hypo.word /runs/skd/test6/ref.word --speakers /data/manifests/test.spk
  python -m fairseq_skd.score /data/hyp.jsonl /data/corpus/table.tsv --normalize upper,punctuation \\
      --unmatched delete --alignment errors.txt --json score.json

exit status: 0 scored; 2 refused; 130 interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, print a table, and write what is asked for."""
    given = _parser().parse_args(arguments)
    require(["rapidfuzz", "scipy"], "analysis", "scoring")
    hypothesis, reference, *others = _read(given)
    pairs, *against = (pair(one, reference, given.by_line, given.unmatched) for one in (hypothesis, *others))
    if not any(record.text.split() for record in pairs.references):
        raise UserError(f"{reference.path}: no word in the {len(pairs.names)} references; give transcripts with words")
    scores = _score(pairs, find_speakers(pairs, given.speakers, given.speaker_pattern))
    found = summarize(scores) | {
        "hypothesis": str(hypothesis.path),
        "reference": str(reference.path),
        "formats": [hypothesis.format, reference.format],
        "paired_by": pairs.by,
        "normalize": list(given.normalize),
        "missing": pairs.missing,
        "unmatched": given.unmatched,
        "surplus": pairs.surplus,
    }
    print(_header(hypothesis, reference, pairs, given.unmatched), end="\n\n")
    print(_table(found))
    for line in _frequent(found["substitutions"]):
        print(line)
    for note in _disguised(scores.aligned):
        print(note)
    if against:
        found["against"] = {"hypothesis": str(others[0].path), **_compare(scores, against[0], others[0].path)}
    _write(given, found, scores)


def _read(given: argparse.Namespace) -> list[Transcripts]:
    """Read HYP, REF and the file of ``--against``, and normalise them."""
    inputs = [path for path in (given.hypothesis, given.reference, given.against, given.speakers) if path]
    for option, out in (("--alignment", given.alignment), ("--json", given.json)):
        if out and Path(out).resolve() in [path.resolve() for path in inputs]:
            raise UserError(f"{option} {out} would replace a file that is read; give another name")
    spoken = ("pred_text", "text")
    sources = [
        Source(given.hypothesis, "--hyp-format", given.hyp_format, spoken),
        Source(given.reference, "--ref-format", given.ref_format),
    ]
    if given.against:
        sources.append(Source(given.against, "--hyp-format", given.hyp_format, spoken))
    read = read_transcripts(sources)
    texts = [[record.text for record in file.records] for file in read]
    if given.hypothesis.resolve() == given.reference.resolve() and texts[0] == texts[1]:
        raise UserError(f"{given.hypothesis}: HYP and REF are the same file; give a hypothesis and a reference")
    normalized = []
    for file in read if given.normalize else []:
        records, notes, unspelt = normalize(file.records, given.normalize, checked_language(given.language))
        if unspelt:
            count, first = len(unspelt), unspelt[0]
            notes.append(f"{count} transcripts keep numbers, first line {first.line}: {first.fault.detail}")
        for note in notes:
            print(f"{file.path}: {note}", file=sys.stderr)
        normalized.append(file._replace(records=records))
    return normalized or read


def _header(hypothesis: Transcripts, reference: Transcripts, pairs: Pairs, unmatched: str) -> str:
    """Say what was compared, and what was left out."""
    lines = [
        f"{hypothesis.path} ({hypothesis.format}) against {reference.path} ({reference.format}): "
        f"{len(pairs.names)} utterances, paired by {pairs.by}"
    ]
    if pairs.missing:
        what = "all their words count as deleted" if unmatched == "delete" else "they are left out"
        lines.append(f"references without hypothesis: {pairs.missing}; {what}")
    if pairs.surplus:
        lines.append(f"hypotheses without reference: {pairs.surplus}; they are left out")
    return "\n".join(lines)


def _score(pairs: Pairs, speakers: list[str] | None) -> Scores:
    hypotheses = [record.text if record else "" for record in pairs.hypotheses]
    return score_texts(pairs.names, hypotheses, [record.text for record in pairs.references], speakers)


def _table(found: dict[str, Any]) -> str:
    """Format rates, intervals and counts, with a line on speakers."""
    drawn = [name for name in ("utterances", "speakers") if name in found["intervals"]]
    rows = []
    rates = [("WER", WER, "word", "words"), ("CER", CER, "character", "characters")]
    if leads(found) == CER:
        rates.reverse()
    for title, name, kind, many in (*rates, ("sentences with errors", "ser", "sentence", "sentences")):
        intervals = ["{:.2f} to {:.2f}".format(*found["intervals"][one][name]) for one in drawn]
        kinds = [found.get(f"{kind}_{what}", "") for what in ("substitutions", "insertions", "deletions")]
        rows.append(
            (title, f"{found[name]:.2f}", *intervals, found[f"{kind}_errors"], f"of {found[many]} {many}", *kinds)
        )
    header = ("", "%", *(f"95 % over {one}" for one in drawn), "errors", "", "subst.", "ins.", "del.")
    columns = ("left", "right", *["right"] * len(drawn), "right", "left", "right", "right", "right")
    lines = tabulate(rows, header, tablefmt="plain", disable_numparse=True, colalign=columns)
    if "speakers" in drawn:
        return f"{lines}\n\nintervals: bootstrap over {found['sentences']} utterances and {found['speakers']} speakers"
    if not drawn:
        return f"{lines}\n\nno intervals: there is one utterance"
    why = "there is one speaker" if found["speakers"] else "speakers are unknown, see --speakers"
    return f"{lines}\n\nintervals: bootstrap over {found['sentences']} utterances; {why}"


def _frequent(substitutions: Sequence[dict[str, Any]]) -> list[str]:
    """List the most frequent substitutions."""
    lines = [
        f"{one['count']:7}  {shown(one['reference'])} -> {shown(one['hypothesis'])}" for one in substitutions[:_SHOWN]
    ]
    return ["", "most frequent substitutions", *lines] if lines else []


def _disguised(aligned: Sequence[Aligned]) -> list[str]:
    """Count substitutions of a word by the same word in another writing, and say what to do."""
    pairs = [(wanted, found) for one in aligned for wanted, found in one if wanted and found and wanted != found]
    notes = []
    for what, fix, fold in (
        ("case", "add --normalize upper", str.upper),
        ("punctuation", "add --normalize punctuation", punctuation),
        ("Unicode form", "convert both files to NFC", partial(unicodedata.normalize, "NFC")),
    ):
        count = sum(fold(wanted) == fold(found) for wanted, found in pairs)
        if count:
            notes.append(f"note: {count} of {len(pairs)} substitutions differ only in {what}; to ignore it, {fix}")
    return ["", *notes] if notes else []


def _compare(scores: Scores, pairs: Pairs, path: Path) -> dict[str, Any]:
    """Compare with another hypothesis, and print a line."""
    if len(scores.names) == 1:
        raise UserError(f"{path}: --against compares several utterances; HYP and REF share one")
    if pairs.names != scores.names:
        raise UserError(
            f"{path}: --against lacks other utterances than HYP; use --unmatched delete, or complete the files"
        )
    found = compare(scores, _score(pairs, scores.speakers))
    rate, (low, high) = scores.leading, found["interval"]
    print(
        f"\nHYP minus {path}: {rate.upper()} {found['difference']:+.2f} points [{low:+.2f}, {high:+.2f}], paired over "
        f"{found['resampled']}; {path} has {found[rate]:.2f} %"
    )
    return found


def _write(given: argparse.Namespace, found: dict[str, Any], scores: Scores) -> None:
    if given.alignment == "-":
        print()
        print(show_alignments(scores), end="")
    elif given.alignment:
        with replacing(given.alignment) as beside:
            beside.write_text(show_alignments(scores), encoding="utf-8")
    if given.json:
        with replacing(given.json) as beside:
            text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)
            beside.write_text(text + "\n", encoding="utf-8")


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd.score",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("hypothesis", type=Path, metavar="HYP", help="transcript to score")
    parser.add_argument("reference", type=Path, metavar="REF", help="correct transcript")
    for side in ("hyp", "ref"):
        parser.add_argument(f"--{side}-format", choices=FORMATS, help="if it cannot be told")
    parser.add_argument("--by-line", action="store_true", help="pair by line, even if utterances have names")
    parser.add_argument(
        "--unmatched",
        choices=UNMATCHED,
        default="refuse",
        help="utterances that one file lacks: refuse; delete: a reference without hypothesis counts as deleted words; "
        "skip: it is left out. delete and skip leave out hypotheses without reference (default: refuse)",
    )
    parser.add_argument(
        "--normalize", metavar="STEPS", type=chosen_steps, default=(), help="changes to both files, see below"
    )
    parser.add_argument(
        "--language", metavar="CODE", default="en", help="language for --normalize, e.g. de, hi, pt-BR (default: en)"
    )
    speakers = parser.add_mutually_exclusive_group()
    speakers.add_argument(
        "--speakers",
        type=Path,
        metavar="FILE",
        help="for intervals over speakers: lines 'utterance speaker', or <split>.spk of the decoded manifest "
        "(default: the column speaker of REF)",
    )
    speakers.add_argument(
        "--speaker-pattern",
        type=_pattern,
        metavar="REGEX",
        help="beginning of a name that is the speaker, or its group: '[^-]+' makes 19 of 19-198-0001",
    )
    parser.add_argument("--against", type=Path, metavar="HYP2", help="compare with a second hypothesis, paired")
    parser.add_argument("--alignment", metavar="FILE", help="write all alignments; -: to the terminal")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, also per utterance")
    return parser


if __name__ == "__main__":
    sys.exit(run_command("fairseq_skd.score", main))
