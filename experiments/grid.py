"""Read and check a grid of experiments: arms, seeds, settings and claims, from a YAML."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from fairseq_skd.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
TEACHER = "{teacher}"  # in an arm's settings: best checkpoint, of the same seed, of the arm it needs
RATES = {"wer": "", "cer": ", CER", "spikes": ", spike disagreement"}  # name in tables


@dataclass(frozen=True, order=True)
class Model:
    """One exit of an arm, e.g. ``skd 6``."""

    arm: str
    exit: int

    def __str__(self) -> str:
        return f"{self.arm} {self.exit}"


@dataclass(frozen=True)
class Claim:
    """One model has a lower rate than another.

    Attributes:
        text: the claim in words.
        better: model that is claimed to have the lower rate.
        worse: the other model.
        rate: ``wer``, ``cer``, or ``spikes`` for spike disagreement with the teacher.
        margin: percentage points by which better's rate may be higher, to claim that nothing is
            lost.
    """

    text: str
    better: Model
    worse: Model
    rate: str = "wer"
    margin: float = 0.0

    @property
    def compared(self) -> str:
        """The subtraction as tables show it."""
        margin = f", up to {self.margin:g} more" if self.margin else ""
        return f"{self.better} minus {self.worse}{RATES[self.rate]}{margin}"


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        exits: layer counts that are decoded; the full model first.
        seeds: one run per seed.
        set: training settings beyond the common ones.
        needs: arm whose best checkpoint of the same seed is the teacher.
        tries: one key, and the values its weight is chosen from.
    """

    exits: tuple[int, ...]
    seeds: tuple[int, ...]
    set: Mapping[str, object] = field(default_factory=dict)
    needs: str | None = None
    tries: Mapping[str, Sequence[object]] = field(default_factory=dict)

    @property
    def aligned(self) -> tuple[int, ...]:
        """Exits whose spikes are compared: with another arm's model, or with the full model."""
        return self.exits if self.needs else self.exits[1:]


@dataclass(frozen=True)
class Grid:
    """A comparison as in its YAML; ``experiments/an4.yaml`` explains the keys."""

    corpus: str
    config: str
    seeds: tuple[int, ...]
    subsets: tuple[str, ...]
    common: Mapping[str, object]
    decode: Mapping[str, object]
    tries: Mapping[str, object]
    arms: Mapping[str, Arm]
    claims: tuple[Claim, ...]

    @property
    def models(self) -> list[Model]:
        """Every exit of every arm, in order."""
        return [Model(name, layer) for name, arm in self.arms.items() for layer in arm.exits]

    def short_tries(self) -> "Grid":
        """Build the grid of short runs that weights are chosen from.

        It has one arm per value, the first seed and subset, and no claims. Teachers are the grid's
        own.
        """
        arms = {
            f"{name}-{value}": replace(arm, seeds=self.seeds[:1], set={**arm.set, **self.tries, key: value}, tries={})
            for name, arm in self.arms.items()
            for key, values in arm.tries.items()
            for value in values
        }
        return replace(self, seeds=self.seeds[:1], subsets=self.subsets[:1], arms=arms, claims=())


def read_grid(path: Path) -> Grid:
    """Read a grid's YAML.

    Raises:
        UserError: the file is not YAML; a key is unknown, missing or has a wrong value; an arm
            needs one that is not above it; or a claim names an exit that no arm has.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(f"grid {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"grid {path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return _grid(content)
    except UserError as error:
        raise UserError(f"grid {path}: {error}") from None


class _Loader(yaml.SafeLoader):
    """A loader that refuses a key given twice: YAML silently keeps the last, so an arm is lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = (key for key, _ in node.value if not key.tag.endswith(":merge"))  # "<<" merges another mapping
        keys = [self.construct_object(key, deep=True) for key in own]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{twice} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _list_of(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(type(item) is kind for item in value)


# What each value must be: in words, and as a test.
_NAME = ("a name without a slash", lambda value: isinstance(value, str) and value.strip(".") and "/" not in value)
_NAMES = ("a list of names", _list_of(str))
_NUMBERS = (
    "a list of different whole numbers, 0 or more",
    lambda value: _list_of(int)(value) and len(set(value)) == len(value) and min(value) >= 0,
)
_MAPPING = ("a mapping", lambda value: isinstance(value, dict))
_LIST = ("a list", lambda value: isinstance(value, list))
_CONFIG = (
    "the name of a YAML in config/finetune",
    lambda value: (REPOSITORY / "config" / "finetune" / f"{value}.yaml").is_file(),
)
_TRIES = (
    "one key and a list of its values",
    lambda value: isinstance(value, dict) and len(value) == 1 and all(isinstance(v, list) for v in value.values()),
)
_GRID = {
    **{"corpus": _NAME, "config": _CONFIG, "seeds": _NUMBERS, "subsets": _NAMES},
    **{"common": _MAPPING, "decode": _MAPPING, "tries": _MAPPING, "arms": _MAPPING, "claims": _LIST},
}
_ARM = {"exits": _NUMBERS, "set": _MAPPING, "needs": _NAME, "seeds": _NUMBERS, "tries": _TRIES}


def _check(section: Mapping[str, Any], kinds: Mapping[str, Any], where: str = "") -> None:
    for key, value in section.items():
        wanted, fits = kinds[key]
        if not fits(value):
            raise UserError(f"{where}{key} is {value}, it must be {wanted}")


def _grid(content: Any) -> Grid:
    if not isinstance(content, dict) or set(content) != set(_GRID):
        wrong = sorted(map(str, set(content) ^ set(_GRID))) if isinstance(content, dict) else []
        told = f": unknown or missing is {', '.join(wrong)}" if wrong else ""
        raise UserError(f"it must have exactly the keys {', '.join(sorted(_GRID))}{told}")
    _check(content, _GRID)
    arms: dict[str, Arm] = {}
    for name, entry in content["arms"].items():
        _check({"its name": name}, {"its name": _NAME}, f"arm {name}: ")
        if not isinstance(entry, dict) or "exits" not in entry:
            raise UserError(f"arm {name} has no exits: give a list of layers")
        if foreign := set(entry) - set(_ARM):
            raise UserError(f"arm {name} has the unknown key {min(foreign)}, give one of {', '.join(sorted(_ARM))}")
        _check(entry, _ARM, f"arm {name}: ")
        whole = {"seeds": content["seeds"], **entry}
        arm = Arm(**{**whole, **{key: tuple(whole[key]) for key in ("exits", "seeds")}})
        if arm.needs is not None and arm.needs not in arms:
            raise UserError(f"arm {name} needs {arm.needs}, which is not an arm above it: move that arm up")
        if arm.needs is None and TEACHER in arm.set.values():
            raise UserError(f"arm {name} has {TEACHER} but no teacher: name the teacher's arm with needs")
        arms[name] = arm
    lists = {key: tuple(content[key]) for key in ("seeds", "subsets")}
    return Grid(**{**content, **lists, "arms": arms, "claims": tuple(_claim(one, arms) for one in content["claims"])})


def _claim(entry: Any, arms: Mapping[str, Arm]) -> Claim:
    needed = {"claim", "better", "worse"}
    if not isinstance(entry, dict) or not needed <= set(entry) <= {*needed, "rate", "margin"}:
        raise UserError(f"the claim {entry} must have claim, better and worse, and may have rate and margin")
    text, rate, margin = str(entry["claim"]), entry.get("rate", "wer"), entry.get("margin", 0.0)
    if rate not in list(RATES) or type(margin) not in (int, float) or not math.isfinite(margin):
        raise UserError(f"the claim {text}: rate must be one of {', '.join(RATES)}, and margin a number")
    models = []
    for key in ("better", "worse"):
        name, _, layer = str(entry[key]).partition(" ")
        if name not in arms or layer not in map(str, arms[name].exits):
            raise UserError(
                f"the claim {text}: {key} is '{entry[key]}', give an arm and an exit of the grid, such as 'skd 6'"
            )
        models.append(Model(name, int(layer)))
        if rate == "spikes" and int(layer) not in arms[name].aligned:
            raise UserError(f"the claim {text}: '{models[-1]}' has no teacher to compare spikes with")
    return Claim(text, models[0], models[1], rate, float(margin))
