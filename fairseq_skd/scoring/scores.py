"""Score texts: errors per utterance, pooled rates with intervals, and the most frequent errors."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from fairseq_skd.errors import shown
from fairseq_skd.files.progress import tracked
from fairseq_skd.scoring.bootstrap import LEVEL, Interval, paired_difference, rate_interval, resampling
from fairseq_skd.scoring.edits import Aligned, Edits, align, count_edits, show_alignment
from fairseq_skd.scoring.leading import CER, leading, noted

_LISTED = 100  # most errors of a kind in the result


class Scores(NamedTuple):
    """Errors of each utterance.

    Attributes:
        names: names of the utterances.
        speakers: speakers of the utterances; None: unknown.
        leading: leading error rate, ``wer`` or ``cer``.
        aligned: alignments of their words, or of their characters where CER leads.
        words: word errors.
        characters: character errors; a space between words is one character.
    """

    names: list[str]
    speakers: list[str] | None
    leading: str
    aligned: list[Aligned]
    words: list[Edits]
    characters: list[Edits]


def score_texts(
    names: Sequence[str], hypotheses: Sequence[str], references: Sequence[str], speakers: Sequence[str] | None = None
) -> Scores:
    """Score each hypothesis against its reference.

    >>> scores = score_texts(["a", "b"], ["THE BAT SAT", "NO"], ["THE CAT SAT", "NO"])
    >>> scores.words[0]
    Edits(substituted=1, inserted=0, deleted=0, total=3)
    >>> scores.characters[0]
    Edits(substituted=1, inserted=0, deleted=0, total=11)
    """
    first = leading(references)
    scores = Scores(list(names), None if speakers is None else list(speakers), first, [], [], [])
    pairs = list(zip(hypotheses, references, strict=True))
    for hypothesis, reference in tracked(pairs, "aligning", "utterance"):
        found, wanted = hypothesis.split(), reference.split()
        words, characters = align(found, wanted), align(" ".join(found), " ".join(wanted))
        scores.words.append(count_edits(words))
        scores.characters.append(count_edits(characters))
        scores.aligned.append(characters if first == CER else words)
    return scores


def summarize(scores: Scores) -> dict[str, Any]:
    """Pool errors to rates with intervals, for a JSON file; rates are in percent.

    The references must hold a word. Names of figures are as in the ``summary.json`` of
    ``fairseq_skd.infer``; ``ser`` is the rate of sentences with a word error.
    """
    counted = {
        "wer": scores.words,
        "cer": scores.characters,
        "ser": [Edits(substituted=int(edits.errors > 0), total=1) for edits in scores.words],
    }
    pooled = {name: sum(edits, Edits()) for name, edits in counted.items()}
    found: dict[str, Any] = {name: round(edits.rate, 4) for name, edits in pooled.items()}
    for kind, name, many in (("word", "wer", "words"), ("character", "cer", "characters")):
        edits = pooled[name]
        found |= {f"{kind}_errors": edits.errors, many: edits.total}
        found |= {f"{kind}_{what}": number for what, number in zip(_KINDS, edits, strict=False)}
    found |= noted(scores.leading)
    found |= {"sentence_errors": pooled["ser"].errors, "sentences": len(scores.names)}
    found["intervals"] = {"level": LEVEL}
    if len(scores.names) > 1:  # one utterance drawn again and again would give an interval without width
        found["intervals"]["utterances"] = _intervals(counted, None)
    drawn = resampling(scores.speakers)
    if drawn["resampled"] == "speakers":
        found["intervals"]["speakers"] = _intervals(counted, scores.speakers)
    found["speakers"] = drawn["speakers"]
    return found | _frequent(scores.aligned) | {"utterances": _utterances(scores)}


_KINDS = ("substitutions", "insertions", "deletions")


def _intervals(counted: dict[str, list[Edits]], groups: Sequence[str] | None) -> dict[str, list[float]]:
    return {
        name: _percent(rate_interval([one.errors for one in edits], [one.total for one in edits], groups))
        for name, edits in counted.items()
    }


def _percent(interval: Interval) -> list[float]:
    return [round(100 * bound, 4) for bound in interval[1:]]


def _frequent(aligned: Sequence[Aligned]) -> dict[str, list[dict[str, Any]]]:
    """Count equal errors by kind; the most frequent first, then in alphabetical order."""
    counts = Counter(pair for pairs in aligned for pair in pairs if pair[0] != pair[1])
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0][0] or "", item[0][1] or ""))
    listed: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _KINDS}
    for (wanted, found), count in ordered:
        kind = "insertions" if wanted is None else "deletions" if found is None else "substitutions"
        words = {name: word for name, word in (("reference", wanted), ("hypothesis", found)) if word is not None}
        listed[kind].append({**words, "count": count})
    return {kind: errors[:_LISTED] for kind, errors in listed.items()}


def _utterances(scores: Scores) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            **({"speaker": scores.speakers[place]} if scores.speakers else {}),
            "word_errors": words.errors,
            "words": words.total,
            "character_errors": characters.errors,
            "characters": characters.total,
        }
        for place, (name, words, characters) in enumerate(
            zip(scores.names, scores.words, scores.characters, strict=True)
        )
    ]


def compare(scores: Scores, other: Scores) -> dict[str, Any]:
    """Compute the difference in the leading rate of two systems, paired by utterance, in points."""
    edits, others = (one.characters if scores.leading == CER else one.words for one in (scores, other))
    mine, its = ([one.errors for one in counts] for counts in (edits, others))
    found = paired_difference(mine, its, [one.total for one in edits], groups=scores.speakers)
    return {
        scores.leading: round(sum(others, Edits()).rate, 4),
        "difference": round(100 * found.interval.value, 4),
        "interval": _percent(found.interval),
        "better": round(found.better, 4),
        "resampled": resampling(scores.speakers)["resampled"],
    }


def show_alignments(scores: Scores) -> str:
    """Write the alignment of each utterance, with its errors by kind."""
    blocks = []
    what, counts = ("characters", scores.characters) if scores.leading == CER else ("words", scores.words)
    for name, aligned, edits in zip(scores.names, scores.aligned, counts, strict=True):
        kinds = "".join(f", {kind} {number}" for kind, number in zip(_KINDS, edits, strict=False) if number)
        title = f"{shown(name)}: errors {edits.errors} of {edits.total} {what}{kinds}"
        blocks.append(f"{title}\n{show_alignment(aligned)}\n")
    return "\n".join(blocks)
