"""A grid's YAML: read and checked, before anything is run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments.claims import Claim
from fairseq_skd.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
TEACHER = "{teacher}"  # in an arm's settings: the best checkpoint of the arm that it needs, of the same seed

# What a value has to be, in words and as a test.
_NAME = ("a name without a slash", lambda value: isinstance(value, str) and value.strip(".") and "/" not in value)
_NAMES = ("a list of names", lambda value: _list_of(value, str))
_NUMBERS = ("a list of different whole numbers", lambda value: _list_of(value, int) and len(set(value)) == len(value))
_SEEDS = ("a list of different whole numbers from 0 on", lambda value: _NUMBERS[1](value) and min(value) >= 0)
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
    **{"corpus": _NAME, "config": _CONFIG, "seeds": _SEEDS, "subsets": _NAMES},
    **{"common": _MAPPING, "decode": _MAPPING, "tries": _MAPPING, "arms": _MAPPING, "claims": _LIST},
}
_ARM = {"exits": _NUMBERS, "set": _MAPPING, "needs": _NAME, "config": _CONFIG, "seeds": _SEEDS, "tries": _TRIES}


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would silently keep the last: an arm would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = (key for key, _ in node.value if not key.tag.endswith(":merge"))  # << takes in another mapping
        keys = [self.construct_object(key, deep=True) for key in own]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{twice} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_grid(path: Path) -> dict[str, Any]:
    """A grid's YAML, checked.

    Raises:
        UserError: not such a file, a key that is unknown, is missing or has a value that it cannot have, an arm that
            needs one that is not there or comes later, or a claim about what is not in it.
    """
    try:
        grid = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(f"grid {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"grid {path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        _check(grid)
    except UserError as error:
        raise UserError(f"grid {path}: {error}") from None
    return grid


def aligned_exits(arm: Mapping[str, Any]) -> Sequence[int]:
    """The exits of an arm that are compared with a teacher: another arm's, or its own full model, which comes first."""
    return arm["exits"] if arm.get("needs") else arm["exits"][1:]


def tries_of(grid: Mapping[str, Any]) -> dict[str, Any]:
    """The grid of the short tries that weights are chosen from: an arm for each value, the first seed and subset.

    The teachers that they need are the grid's own.
    """
    arms = {
        f"{name}-{value}": {
            **{key: arm[key] for key in arm if key not in ("tries", "seeds")},
            "set": {**arm.get("set", {}), **grid["tries"], key: value},
        }
        for name, arm in grid["arms"].items()
        for key, values in arm.get("tries", {}).items()
        for value in values
    }
    return {**grid, "seeds": grid["seeds"][:1], "subsets": grid["subsets"][:1], "arms": arms}


def _check(grid: Any) -> None:
    if not isinstance(grid, dict) or set(grid) != set(_GRID):
        wrong = sorted(map(str, set(grid) ^ set(_GRID))) if isinstance(grid, dict) else []
        told = f", {', '.join(wrong)} is unknown or missing" if wrong else ""
        raise UserError(f"it has to have exactly the keys {', '.join(sorted(_GRID))}{told}")
    _check_values(grid, _GRID, "")
    known: set[str] = set()
    for name, arm in grid["arms"].items():
        _check_values({"its name": name}, {"its name": _NAME}, f"arm {name}: ")
        if not isinstance(arm, dict) or "exits" not in arm:
            raise UserError(f"arm {name} has no exits")
        foreign = set(arm) - set(_ARM)
        if foreign:
            raise UserError(f"arm {name} has the unknown key {min(foreign)}, it can have {', '.join(sorted(_ARM))}")
        _check_values(arm, _ARM, f"arm {name}: ")
        needs = arm.get("needs")
        if needs is not None and needs not in known:
            raise UserError(f"arm {name} needs {needs}, which is not among the arms above it")
        if needs is None and TEACHER in arm.get("set", {}).values():
            raise UserError(f"arm {name} has {TEACHER} and no needs, which says whose checkpoint that is")
        known.add(name)
    for entry in grid["claims"]:
        claim = Claim.read(entry, grid["arms"])
        for model in (claim.better, claim.worse):
            if claim.rate == "spikes" and model.exit not in aligned_exits(grid["arms"][model.arm]):
                raise UserError(f"the claim {claim.text}: the spikes of '{model}' are compared with no teacher's")


def _check_values(section: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> None:
    for key, value in section.items():
        wanted, fits = kinds[key]
        if not fits(value):
            raise UserError(f"{where}{key} is {value}, it has to be {wanted}")


def _list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is kind for item in value)
