import ast
import gzip
import importlib.util
import sys
from pathlib import Path

import pytest

import fairseq_skd
from fairseq_skd.errors import UserError
from fairseq_skd.search import language_model
from fairseq_skd.search.language_model import check_language_model, load_language_model, unknown_entries
from tests.search.language_models import ARPA, log10_probability, write_arpa

WORDS = ["A", "NO", "ON", "TEN", "<unk>"]
with_flashlight = pytest.mark.skipif(
    importlib.util.find_spec("flashlight") is None, reason="flashlight-text is not installed"
)


@with_flashlight
@pytest.mark.parametrize("compressed", [False, True])
def test_scores_equal_the_file(tmp_path: Path, compressed: bool) -> None:
    path = write_arpa(tmp_path)
    if compressed:
        path = tmp_path / "lm.arpa.gz"
        path.write_bytes(gzip.compress(ARPA.encode()))
    model = load_language_model(path, WORDS)
    for sentence in (["A", "NO", "ON"], ["NO"], ["TEN", "A"], []):
        state, total = model.start(False), 0.0
        for word in sentence:
            state, score = model.score(state, WORDS.index(word))
            total += score
        assert total + model.finish(state)[1] == pytest.approx(log10_probability(sentence), abs=1e-6)
    assert unknown_entries(model, WORDS, WORDS[:4]) == ["TEN"]


@with_flashlight
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.97])
def test_a_truncated_model_is_one_sentence(tmp_path: Path, share: float) -> None:
    path = write_arpa(tmp_path, ARPA[: int(share * len(ARPA))])
    with pytest.raises(UserError, match=r"language model .*lm\.arpa cannot be read: ") as caught:
        load_language_model(path, WORDS)
    assert "\n" not in str(caught.value)


@with_flashlight
def test_a_truncated_gzip_and_a_truncated_binary(tmp_path: Path) -> None:
    broken = tmp_path / "lm.arpa.gz"
    broken.write_bytes(gzip.compress(ARPA.encode())[:80])
    binary = tmp_path / "lm.bin"
    binary.write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(20))
    for path in (broken, binary):
        with pytest.raises(UserError, match="cannot be read: "):
            load_language_model(path, WORDS)


def test_files_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        check_language_model(tmp_path / "none.arpa")
    other = tmp_path / "lm.pt"
    for content in (b"", b"PK\x03\x04", b"A NO\n"):
        other.write_bytes(content)
        with pytest.raises(UserError, match=r"lm\.pt is neither ARPA .* nor KenLM's binary format"):
            check_language_model(other)


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flashlight", None)
    for name in [name for name in sys.modules if name.startswith("flashlight.")]:
        monkeypatch.setitem(sys.modules, name, None)
    advice = r"pip install 'fairseq_skd\[lm\]'" if sys.version_info < (3, 13) else "it has no wheel for Python 3.13, .*"
    with pytest.raises(UserError, match=f"needs flashlight-text: {advice}$"):
        language_model.flashlight()


def test_no_import_statement_names_flashlight() -> None:
    for path in Path(fairseq_skd.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.partition(".")[0] in ("flashlight", "kenlm")], path
