from pathlib import Path
from typing import Any

import pytest
import yaml

from fairseq_skd.cli import compose
from fairseq_skd.compat import to_container
from fairseq_skd.decoding.config import TYPES, Settings
from fairseq_skd.errors import UserError
from fairseq_skd.typed_settings import MISSING

CONFIG = Path(__file__).parents[2] / "config" / "decode"
NEEDED = {"task": {"data": "/d"}, "common_eval": {"path": "/c.pt"}}


def with_key(section: str, key: str, value: Any) -> dict[str, Any]:
    return {**NEEDED, section: {**NEEDED.get(section, {}), key: value}}


@pytest.mark.parametrize("name", TYPES)
def test_yaml_lists_every_key_at_its_default(name: str) -> None:
    listed = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())
    expected = {section: dict(vars(keys)) for section, keys in vars(Settings()).items()}
    expected["decoding"]["type"] = name
    assert listed == expected
    assert (CONFIG / f"{name}.yaml").read_text().startswith("# @package _group_\n")


@pytest.mark.slow
def test_numbers_may_be_whole_or_infinite() -> None:
    values = {"lmweight": 2, "wordscore": -0.5, "unkweight": float("-inf"), "beamsizetoken": None}
    read = Settings.read({**NEEDED, "decoding": values}).decoding
    assert (read.lmweight, read.wordscore, read.unkweight) == (2.0, -0.5, float("-inf"))
    assert type(read.lmweight) is float
    composed = compose(CONFIG, "kenlm", ["task.data=/d", "common_eval.path=/c.pt", "decoding.lmweight=3"])
    composed.decoding.lexicon = composed.decoding.lmpath = "/l"
    options = Settings.read(to_container(composed)).decoding.options
    assert (options.lmweight, options.unkweight) == (3.0, float("-inf"))


def test_composed_yaml_is_read() -> None:
    config = compose(
        CONFIG, "viterbi", ["task.data=/d", "common_eval.path=/c.pt", "decoding.layer=6", "common.cpu=true"]
    )
    settings = Settings.read(to_container(config))
    assert (settings.task.data, settings.common_eval.path) == ("/d", "/c.pt")
    assert (settings.decoding.layer, settings.common.cpu, settings.dataset.gen_subset) == (6, True, "test")


def test_every_key_is_described() -> None:
    text = Settings.describe()
    for section, values in vars(Settings()).items():
        for key in vars(values):
            assert f"{section}.{key} (" in text
    assert "task.data (required)" in text
    assert "common.cpu (false)" in text


@pytest.mark.parametrize("labels", ["ltr", ["ltr"], None])
def test_labels_are_a_text_or_a_list(labels: Any) -> None:
    assert Settings.read(with_key("task", "labels", labels)).task.labels == labels


def test_a_number_can_name_a_subset() -> None:
    assert Settings.read(with_key("dataset", "gen_subset", 2019)).dataset.gen_subset == "2019"


@pytest.mark.parametrize(
    ("section", "key", "value", "sentence"),
    [
        ("decoding", "lyer", 6, r"there is no key decoding\.lyer, decoding has: type, layer, "),
        ("decoding", "layer", "six", r"decoding\.layer=six cannot be used, it takes a whole number or null"),
        ("decoding", "lmweight", "two", r"decoding\.lmweight=two cannot be used, it takes a number"),
        ("decoding", "beam", 1.5, r"decoding\.beam=1\.5 cannot be used, it takes a whole number"),
        ("decoding", "layer", True, r"decoding\.layer=true cannot be used, it takes a whole number or null"),
        ("decoding", "layer", 6.0, r"decoding\.layer=6\.0 cannot be used"),
        ("decoding", "layer", -1, r"decoding\.layer=-1 is out of range, it is at least 0"),
        (
            "decoding",
            "type",
            "fairseqlm",
            r"decoding\.type=fairseqlm is unknown: choose one of viterbi, kenlm, lexfree",
        ),
        ("dataset", "max_tokens", 0, r"dataset\.max_tokens=0 is out of range"),
        ("dataset", "batch_size", 0, r"dataset\.batch_size=0 is out of range"),
        ("dataset", "num_workers", None, r"dataset\.num_workers=null cannot be used, it takes a whole number"),
        ("dataset", "gen_subset", True, r"dataset\.gen_subset=true cannot be used, it takes a text"),
        ("task", "labels", [1], r"task\.labels=\[1\] cannot be used, it takes a text or a list of texts or null"),
        ("task", "data", MISSING, r"task\.data is not set \(folder with .*\): give task\.data=\.\.\.$"),
        (
            "common_eval",
            "path",
            MISSING,
            r"common_eval\.path is not set \(the fine-tuned checkpoint\): give common_eval\.path=",
        ),
        ("common_eval", "post_process", "bpe", r"common_eval\.post_process=bpe is unknown: choose one of letter, "),
        ("common_eval", "quiet", "yes", r"common_eval\.quiet=yes cannot be used, it takes true or false"),
        ("common", "cpu", 1, r"common\.cpu=1 cannot be used, it takes true or false"),
    ],
)
def test_refused_values(section: str, key: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Settings.read(with_key(section, key, value))


def test_both_half_precisions_are_refused() -> None:
    with pytest.raises(UserError, match=r"common\.fp16 and common\.bf16 are both true"):
        Settings.read({**NEEDED, "common": {"fp16": True, "bf16": True}})


def test_sections() -> None:
    with pytest.raises(
        UserError, match="there is no section decode, the sections are: task, common, common_eval, dataset, decoding$"
    ):
        Settings.read({**NEEDED, "decode": {}})
    with pytest.raises(UserError, match=r"task=hubert_pretraining replaces a whole section"):
        Settings.read({**NEEDED, "task": "hubert_pretraining"})
