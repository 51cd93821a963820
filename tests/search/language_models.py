"""A small bigram model, and its probabilities computed from its lines."""

from collections.abc import Sequence
from pathlib import Path

ARPA = """\\data\\
ngram 1=6
ngram 2=4

\\1-grams:
-1.6	<unk>
-99	<s>	-0.3
-0.5	</s>
-0.4	A	-0.2
-0.9	NO	-0.1
-1.1	ON	-0.4

\\2-grams:
-0.2	<s> A
-0.3	A NO
-0.1	NO </s>
-0.6	NO ON

\\end\\
"""
UNIT_ARPA = ARPA.replace("NO", "N").replace("ON", "O")


def write_arpa(folder: Path, text: str = ARPA, name: str = "lm.arpa") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def log10_probability(entries: Sequence[str], text: str = ARPA) -> float:
    """Compute the probability of a sentence with its end, from the lines of the file."""
    fields = [line.split("\t") for line in text.splitlines() if "\t" in line]
    scores = {field[1]: float(field[0]) for field in fields}
    backoffs = {field[1]: float(field[2]) for field in fields if len(field) > 2}
    total, before = 0.0, "<s>"
    for entry in (*entries, "</s>"):
        known = entry if entry in scores else "<unk>"
        pair = f"{before} {known}"
        total += scores[pair] if pair in scores else backoffs.get(before, 0.0) + scores[known]
        before = known
    return total
