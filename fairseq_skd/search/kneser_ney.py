"""Estimate an n-gram model with interpolated modified Kneser-Ney smoothing, and write it as ARPA.

Source: S. Chen, J. Goodman, 1998. Conventions as in KenLM's lmplz: each sentence begins with one
``<s>``; n-grams that begin with ``<s>`` keep their raw counts; the unigrams' discounts are spread
evenly over all words, ``</s>`` and ``<unk>``.

Let h' be the context h without its first word. Let a(hw) be the count of hw at the highest order,
and at lower orders the number of different words that precede hw. The probability of w after h is

    p(w | h) = (a(hw) - D(a(hw))) / sum_v a(hv)  +  b(h) p(w | h')
    b(h)     = sum_v D(a(hv)) / sum_v a(hv)
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.files.disk import replacing
from fairseq_skd.files.progress import tracked

Gram = tuple[str, ...]
BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
FALLBACK = (0.5, 1.0, 1.5)  # lmplz's discounts if counts are too few to estimate them


class Model(NamedTuple):
    """The probabilities and backoffs of an ARPA file.

    Attributes:
        probabilities: for each order from 1, p(last word | other words) of each n-gram.
        backoffs: for each order except the highest, b(h) of each n-gram h that is a context; the
            backoff of other n-grams is 1.
        fallbacks: orders whose discounts are :data:`FALLBACK`.
    """

    probabilities: list[dict[Gram, float]]
    backoffs: list[dict[Gram, float]]
    fallbacks: list[int]

    def probability(self, word: str, context: Sequence[str]) -> float:
        """Compute p(word | context), with backoff if the n-gram was not seen."""
        gram = (*context[max(0, len(context) - len(self.probabilities) + 1) :], word)
        if len(gram) == 1:
            return self.probabilities[0].get(gram, self.probabilities[0][UNKNOWN,])
        if gram in self.probabilities[len(gram) - 1]:
            return self.probabilities[len(gram) - 1][gram]
        return self.backoffs[len(gram) - 2].get(gram[:-1], 1.0) * self.probability(word, gram[1:-1])


def estimate(sentences: Iterable[Sequence[str]], order: int) -> Model:
    """Count n-grams and smooth their probabilities.

    Args:
        sentences: words of each sentence, without ``<s>`` and ``</s>``.
        order: n, at least 1.

    >>> model = estimate([["A", "B"], ["A"]], order=2)
    >>> model.probability("B", ["A"])  # (1 - 1/2) / 2 + 1/2 p(B)
    0.375
    """
    counts = _adjusted_counts(sentences, order)
    words = {word for (word,) in counts[0]} - {BEGIN}
    uniform = 1.0 / (len(words) + 1)  # and <unk>
    probabilities: list[dict[Gram, float]] = []
    backoffs: list[dict[Gram, float]] = []
    fallbacks = []
    for n, grams in enumerate(tracked(counts, "estimating", "order"), start=1):
        predicted = {gram: count for gram, count in grams.items() if gram != (BEGIN,)}
        discounts = _discounts(predicted.values())
        if discounts is None:
            fallbacks.append(n)
        taken = [0.0, *(discounts or FALLBACK)]
        totals: dict[Gram, float] = defaultdict(float)
        saved: dict[Gram, float] = defaultdict(float)
        for gram, count in predicted.items():
            totals[gram[:-1]] += count
            saved[gram[:-1]] += taken[min(count, 3)]
        shares = {context: saved[context] / total for context, total in totals.items()}
        found = {}
        for gram, count in predicted.items():
            lower = probabilities[-1][gram[1:]] if n > 1 else uniform
            found[gram] = (count - taken[min(count, 3)]) / totals[gram[:-1]] + shares[gram[:-1]] * lower
        if n == 1:
            found[UNKNOWN,] = shares[()] * uniform
        else:
            backoffs.append(shares)
        probabilities.append(found)
    return Model(probabilities, backoffs, fallbacks)


def write_arpa(model: Model, path: Path) -> None:
    """Write the model as an ARPA file, which appears when it is complete."""
    with replacing(path) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        orders = [dict(grams) for grams in model.probabilities]
        orders[0][BEGIN,] = 1e-99  # never predicted
        file.write("\\data\\\n")
        file.writelines(f"ngram {n}={len(grams)}\n" for n, grams in enumerate(orders, start=1))
        for n, grams in enumerate(tracked(orders, "writing", "order"), start=1):
            file.write(f"\n\\{n}-grams:\n")
            backoffs = model.backoffs[n - 1] if n < len(orders) else {}
            for gram in sorted(grams):
                backoff = f"\t{math.log10(backoffs[gram]):.7f}" if gram in backoffs else ""
                file.write(f"{math.log10(grams[gram]):.7f}\t{' '.join(gram)}{backoff}\n")
        file.write("\n\\end\\\n")


def _adjusted_counts(sentences: Iterable[Sequence[str]], order: int) -> list[Counter[Gram]]:
    """Count a(.) of each order."""
    raw: list[Counter[Gram]] = [Counter() for _ in range(order)]
    for sentence in sentences:
        words = (BEGIN, *sentence, END)
        for n in range(1, order + 1):
            raw[n - 1].update(words[i : i + n] for i in range(len(words) - n + 1))
    adjusted = [raw[-1]]
    for lower, higher in zip(reversed(raw[:-1]), reversed(raw[1:]), strict=True):
        counts = Counter(gram[1:] for gram in higher)  # each n-gram of the higher order adds one preceding word
        counts.update({gram: count for gram, count in lower.items() if gram[0] == BEGIN})
        adjusted.append(counts)
    return adjusted[::-1]


def _discounts(counts: Iterable[int]) -> tuple[float, ...] | None:
    """Estimate D(1), D(2) and D(3 or more) by equation 26; None if counts are too few."""
    of = Counter(count for count in counts if count <= 4)
    if not (of[1] and of[2] and of[3]):
        return None
    y = of[1] / (of[1] + 2 * of[2])
    discounts = tuple(k - (k + 1) * y * of[k + 1] / of[k] for k in (1, 2, 3))
    return discounts if all(0 <= discount <= k for k, discount in enumerate(discounts, start=1)) else None
