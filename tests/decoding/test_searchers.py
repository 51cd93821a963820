"""Beam search in a whole decode, on five utterances and checkpoints that output one symbol."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import fairseq_skd.decoding.decode
from fairseq_skd.decoding.config import Settings
from fairseq_skd.errors import UserError
from tests.builders import LETTERS
from tests.decoding.checkpoints import (
    CONFIG,
    REFERENCES,
    edit_checkpoint,
    read_files,
    read_summary,
    set_constant_symbols,
    write_fine_tuned,
)
from tests.search.language_models import ARPA, write_arpa

pytest.importorskip("flashlight.lib.text", reason="flashlight-text is not installed")
pytestmark = pytest.mark.usefixtures("here")


def decode(corpus: Path, checkpoint: Path, name: str, out: str | None = "out", **decoding: Any) -> dict[str, bytes]:
    config: dict[str, Any] = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())
    config["task"]["data"], config["common_eval"]["path"] = str(corpus), str(checkpoint)
    config["dataset"]["num_workers"] = 0
    config["common_eval"]["results_path"] = out
    config["decoding"].update(decoding)
    folder, _ = fairseq_skd.decoding.decode.decode(Settings.read(config))
    return read_files(folder)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("A\tA |\nNO\tN O |\nON\tO N |\nIT\tI T |\nIS\tI S |\nTO\tT O |\nBE\tB E |\n")
    return {"lexicon": str(lexicon), "lmpath": str(write_arpa(tmp_path))}


@pytest.mark.slow
def test_kenlm(corpus: Path, hubert: Path, tmp_path: Path, files: dict[str, str], capsys: Any) -> None:
    """The head slightly prefers N; the search outputs the word that the language model prefers."""
    constant = set_constant_symbols(hubert, tmp_path / "constant.pt", {"w2v_encoder": "N"})
    found = decode(corpus, constant, "kenlm", lmweight=0.5, wordscore=0.0, **files)
    assert found["hypo.word"] == b"".join(b"NO (None-%d)\n" % index for index in range(5))
    assert found["hypo.units"] == b"".join(b"N O | (None-%d)\n" % index for index in range(5))
    assert found["ref.word"].decode() == REFERENCES["ref.word"]
    summary = read_summary()
    # A NO / TEN / TO BE / EAT / IT IS
    assert (summary["word_errors"], summary["words"]) == (1 + 1 + 2 + 1 + 2, 8)
    assert (summary["search"], summary["post_process"]) == ("kenlm", "letter")
    assert (summary["lmpath"], summary["lexicon"]) == (files["lmpath"], files["lexicon"])
    assert (summary["beam"], summary["lmweight"], summary["wordscore"]) == (50, 0.5, 0.0)
    assert (summary["unkweight"], summary["oov_words"], summary["oov_distinct"]) == ("-inf", 2, 2)
    sentence = "2 of the 8 words in the references (2 distinct) are not in the lexicon: they cannot be recognized\n"
    assert sentence in capsys.readouterr().err
    assert decode(corpus, constant, "kenlm", lmweight=0.5, wordscore=0.0, **files) == found
    more = decode(corpus, constant, "kenlm", lmweight=0.5, wordscore=9.0, **files)
    assert len(more["hypo.word"].split()) > len(found["hypo.word"].split())


@pytest.mark.parametrize("kind", ["kenlm", "lexfree"])
@pytest.mark.slow
def test_the_weight_of_the_blank(corpus: Path, hubert: Path, tmp_path: Path, files: dict[str, str], kind: str) -> None:
    silent = set_constant_symbols(hubert, tmp_path / "silent.pt", {"w2v_encoder": "<s>"})
    used = {**files, "lmweight": 0.0, "wordscore": 0.0} if kind == "kenlm" else {}
    nothing = b"".join(b" (None-%d)\n" % index for index in range(5))
    assert decode(corpus, silent, kind, **used)["hypo.word"] == nothing
    assert decode(corpus, silent, kind, blankweight=-1000, **used)["hypo.word"] != nothing


@pytest.mark.slow
def test_lexfree(corpus: Path, hubert: Path, tmp_path: Path) -> None:
    """Without a language model it is the best path; with one that favors E, the text has only E."""
    greedy = decode(corpus, hubert, "viterbi")
    assert decode(corpus, hubert, "lexfree", beam=5) == greedy
    assert read_summary()["search"] == "lexfree" and read_summary()["lmpath"] is None
    assert not {"lexicon", "oov_words", "wordscore", "unkweight"} & set(read_summary())
    scores = {"<unk>": -9.0, "<s>": -99.0, "</s>": -1.0}
    scores |= {letter: -0.1 if letter == "E" else -3.0 - 0.001 * i for i, letter in enumerate(LETTERS)}
    lines = "\n".join(f"{score}\t{unit}\t0" for unit, score in scores.items())
    sizes = f"ngram 1={len(scores)}\nngram 2=1"
    text = f"\\data\\\n{sizes}\n\n\\1-grams:\n{lines}\n\n\\2-grams:\n-0.1\tE E\n\n\\end\\\n"
    lmpath = str(write_arpa(tmp_path, text, "units.arpa"))
    found = decode(corpus, hubert, "lexfree", lmpath=lmpath, lmweight=30.0)
    said = {unit for line in found["hypo.units"].decode().splitlines() for unit in line.split()[:-1]}
    assert said <= {"E"}


def test_phrases(corpus: Path, hubert: Path, tmp_path: Path, files: dict[str, str]) -> None:
    """The head slightly prefers N; the phrase IT gets the word out of 32 equal units."""
    constant = set_constant_symbols(hubert, tmp_path / "constant.pt", {"w2v_encoder": "N"})
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("IT\nBEAN\t0.5\n")
    boosted = {"phrases": str(phrases), "phraseweight": 3.0}
    found = decode(corpus, constant, "lexfree", beam=10, **boosted)
    assert all("IT" in line.split()[:-1] for line in found["hypo.word"].decode().splitlines())
    summary = read_summary()
    assert (summary["phrases"], summary["phrase_count"], summary["phraseweight"]) == (str(phrases), 2, 3.0)
    found = decode(corpus, constant, "kenlm", lmweight=0.5, times=True, **boosted, **files)
    assert any("IT" in line.split() for line in found["hypo.word"].decode().splitlines())
    assert read_summary()["oov_words"] == 2  # BEAN is in the lexicon now, TEN and EAT are not


def test_default_folder_names_the_search(corpus: Path, hubert: Path, files: dict[str, str], here: Path) -> None:
    decode(corpus, hubert, "kenlm", out=None, layer=2, **files)
    assert (here / "decode" / "test-layer2-kenlm" / "summary.json").is_file()


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        (
            "kenlm",
            {"lexicon": None},
            r"decoding\.type=kenlm needs decoding\.lexicon: set it, or decoding\.type=lexfree to search without",
        ),
        ("kenlm", {"lmpath": None}, r"decoding\.type=kenlm needs decoding\.lmpath"),
        ("kenlm", {"lexicon": "none.txt"}, r"lexicon .*none\.txt does not exist"),
        ("kenlm", {"lmpath": "none.arpa"}, r"language model .*none\.arpa does not exist"),
        ("kenlm", {"phrases": "none.txt"}, r"phrases .*none\.txt does not exist"),
        (
            "kenlm",
            {"phraseweight": -1.0},
            r"decoding\.phraseweight=-1\.0 is out of range: give a number from 0 to 1000",
        ),
        (
            "viterbi",
            {"lexicon": None, "lmpath": None, "phrases": "p.txt"},
            r"decoding\.phrases=p\.txt is not used by decoding\.type=viterbi: set decoding\.type=lexfree, or delete it",
        ),
        ("kenlm", {"beam": 0}, r"decoding\.beam=0 is out of range"),
        ("lexfree", {}, r"decoding\.lexicon=.* is not used by decoding\.type=lexfree: delete it"),
        ("viterbi", {"lexicon": None}, r"decoding\.lmpath=.* is not used by decoding\.type=viterbi: delete it"),
        ("lexfree", {"lexicon": None}, r"knows 1 of the 28 units of the dictionary"),
    ],
)
def test_mistakes_are_reported_before_anything_is_written(
    corpus: Path, hubert: Path, files: dict[str, str], name: str, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        decode(corpus, hubert, name, **{**files, **changes})
    assert "\n" not in str(caught.value)
    assert not list(Path.cwd().iterdir())


def test_a_broken_language_model_leaves_no_files(
    corpus: Path, hubert: Path, files: dict[str, str], tmp_path: Path
) -> None:
    files["lmpath"] = str(write_arpa(tmp_path, ARPA[:-40], "broken.arpa"))
    with pytest.raises(UserError, match=r"broken\.arpa cannot be read: "):
        decode(corpus, hubert, "kenlm", **files)
    assert not list(Path.cwd().iterdir())


@pytest.mark.slow
def test_words_of_pieces_come_from_the_checkpoint(corpus: Path, tmp_path: Path) -> None:
    """Word pieces: post_process=null takes the checkpoint's own; another gives other words."""
    letters = [letter if letter != "|" else "\u2581A" for letter in LETTERS]
    trained = write_fine_tuned(tmp_path / "c.pt")
    state = torch.load(trained, weights_only=True)
    dictionary = state["task_state"]["target_dictionary"]
    dictionary.symbols[4:] = letters
    dictionary.indices = {symbol: index for index, symbol in enumerate(dictionary.symbols)}
    state["cfg"]["criterion"] = {"_name": "skd_ctc", "post_process": "sentencepiece"}
    state["cfg"]["task"]["labels"] = ["spm"]
    state["model"]["w2v_encoder.proj.weight"].zero_()
    state["model"]["w2v_encoder.proj.bias"] = torch.eye(32)[4]
    torch.save(state, trained)
    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    (data / "dict.spm.txt").write_text("".join(f"{letter} 1\n" for letter in letters))
    (data / "test.spm").write_text("\u2581A \u2581A N\n\u2581A\n\u2581A\n\u2581A\n\u2581A\n")
    found = decode(data, trained, "viterbi")
    assert found["ref.word"].decode().splitlines()[0] == "A AN (None-0)"
    assert found["hypo.word"].decode().splitlines()[0] == "A (None-0)"
    assert read_summary()["post_process"] == "sentencepiece"
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("A\t\u2581A\nNO\t\u2581A N O\n")
    files = {"lexicon": str(lexicon), "lmpath": str(write_arpa(tmp_path)), "lmweight": 0.5, "wordscore": 0.0}
    found = decode(data, trained, "kenlm", **files)
    assert found["hypo.word"] == b"".join(b"A (None-%d)\n" % index for index in range(5))
    wrong = edit_checkpoint(trained, tmp_path / "wrong.pt", criterion={"post_process": "letter"})
    with pytest.raises(UserError, match=r"post_process=letter does not fit a dictionary with word pieces: set it to"):
        decode(data, wrong, "viterbi")
