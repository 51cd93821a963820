"""Claims about the arms of a grid, as its YAML states them before anything is run."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from fairseq_skd.errors import UserError

# And how tables name them; WER goes without saying.
RATES = {"wer": "", "cer": ", CER", "spikes": ", spike disagreement"}
_NEEDED = ("claim", "better", "worse")


class Model(NamedTuple):
    """An exit of an arm: ``skd 6``."""

    arm: str
    exit: int

    def __str__(self) -> str:
        return f"{self.arm} {self.exit}"


class Claim(NamedTuple):
    """One model has a lower rate than another.

    Attributes:
        text: in words.
        better: the model that is claimed to have the lower rate.
        worse: the other.
        rate: ``wer``, ``cer``, or ``spikes`` for spike disagreement with the teacher.
        margin: percentage points by which it may be higher, for a claim that nothing is lost.
    """

    text: str
    better: Model
    worse: Model
    rate: str = "wer"
    margin: float = 0.0

    @property
    def compared(self) -> str:
        """What is subtracted from what, for people."""
        margin = f", up to {self.margin:g} more" if self.margin else ""
        return f"{self.better} minus {self.worse}{RATES[self.rate]}{margin}"

    @classmethod
    def read(cls, entry: Any, arms: Mapping[str, Any]) -> "Claim":
        """A claim of a grid's YAML.

        Args:
            entry: ``claim``, ``better`` and ``worse`` (``ARM EXIT``), perhaps ``rate`` and ``margin``.
            arms: of the grid, each with its ``exits``.

        Raises:
            UserError: an entry lacks something, has something else, or names an exit that no arm has.
        """
        if not isinstance(entry, dict) or not set(_NEEDED) <= set(entry) <= {*_NEEDED, "rate", "margin"}:
            raise UserError(f"the claim {entry} has to have claim, better and worse, and can have rate and margin")
        rate, margin = entry.get("rate", "wer"), entry.get("margin", 0.0)
        known = isinstance(rate, str) and rate in RATES
        if not known or isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin):
            raise UserError(f"the claim {entry['claim']}: rate is one of {', '.join(RATES)}, margin a number")
        better, worse = (_model(entry, key, arms) for key in ("better", "worse"))
        return cls(str(entry["claim"]), better, worse, rate, float(margin))


def _model(entry: Mapping[str, Any], key: str, arms: Mapping[str, Any]) -> Model:
    arm, _, layer = str(entry[key]).partition(" ")
    if not layer.isdecimal() or int(layer) not in arms.get(arm, {"exits": []})["exits"]:
        raise UserError(
            f"the claim {entry['claim']}: {key} is '{entry[key]}', no arm and exit of the grid, such as 'skd 6'"
        )
    return Model(arm, int(layer))
