"""Word pieces: training, fairseq's dictionary of them, feasibility, reuse, mistakes."""

import re
import sys
from pathlib import Path

import pytest
import sentencepiece
import torch
from fairseq.data import Dictionary
from fairseq.data.data_utils import post_process

from fairseq_skd import manifest
from fairseq_skd.corpora.pieces import Pieces, train_pieces
from fairseq_skd.corpora.validation import feasibility_faults
from fairseq_skd.errors import UserError
from fairseq_skd.files.units import LETTERS

TEXTS = ["GO ON AND ON", "ON AND ON IT GOES", "DON'T GO ON", "AND SO IT GOES ON"] * 3


@pytest.fixture
def table(write_table) -> Path:
    """Write two utterances to train on, and a test utterance with letters that they lack."""
    rows = [("a.wav", "GO ON AND ON", "train"), ("deep/b.flac", "ON AND ON IT GOES", "train")]
    return write_table(*rows, ("c:1.ogg", "JAZZ QUIZ", "test"))


def run(table: Path, corpus: Path, out: Path, *options: str) -> None:
    """Run the command with word pieces in this process."""
    manifest.main(["table", str(table), "--audio-root", str(corpus), "--out", str(out), "--unit", "spm", *options])


def test_fairseq_reads_the_files(table: Path, corpus: Path, tmp_path: Path, capfd):
    out = tmp_path / "out"
    run(table, corpus, out, "--vocab-size", "30")
    assert {path.name for path in out.iterdir()} == {
        *("train.tsv", "train.spm", "train.wrd", "test.tsv", "test.spm", "test.wrd", "dict.spm.txt", "spm.model")
    }
    dictionary = Dictionary.load(str(out / "dict.spm.txt"))
    assert len(dictionary) == 4 + 30
    assert dictionary.symbols[:4] == ["<s>", "<pad>", "</s>", "<unk>"], "followed by none of the model's own"
    assert len(set(dictionary.symbols)) == len(dictionary.symbols)
    for split in ("train", "test"):
        for line, text in zip(
            (out / f"{split}.spm").read_text().splitlines(),
            (out / f"{split}.wrd").read_text().splitlines(),
            strict=True,
        ):
            units = dictionary.encode_line(line, append_eos=False, add_if_not_exist=False)
            assert not set(units.tolist()) & {0, 1, 2, 3}
            assert post_process(dictionary.string(units), "sentencepiece") == text
    printed = capfd.readouterr()
    assert "sentencepiece" not in printed.err and "trainer" not in printed.err
    assert printed.out.splitlines()[0].split()[-1] == "pieces"
    assert printed.out.splitlines()[1].split()[-1] == str(len((out / "train.spm").read_text().split()))


def test_the_same_texts_give_the_same_bytes():
    assert train_pieces(TEXTS, 32, LETTERS.alphabet).content == train_pieces(TEXTS, 32, LETTERS.alphabet).content


def test_sentencepiece_reads_the_model(table: Path, corpus: Path, tmp_path: Path):
    run(table, corpus, tmp_path / "out", "--vocab-size", "30")
    peer = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "out" / "spm.model"))
    lines = (tmp_path / "out" / "train.spm").read_text().splitlines()
    assert lines == [" ".join(peer.encode(text, out_type=str)) for text in ("GO ON AND ON", "ON AND ON IT GOES")]


def test_a_model_reused_for_another_set(table: Path, write_table, corpus: Path, tmp_path: Path):
    run(table, corpus, tmp_path / "one", "--vocab-size", "30")
    other = write_table(("a.wav", "SO IT GOES", "other"))
    run(other, corpus, tmp_path / "one", "--spm-model", str(tmp_path / "one" / "spm.model"))
    assert (tmp_path / "one" / "other.spm").read_text().replace(" ", "") == "▁SO▁IT▁GOES\n"


def test_vocabularies_of_an_impossible_size(table: Path, corpus: Path, tmp_path: Path):
    with pytest.raises(UserError, match="--vocab-size 5000: the transcripts allow at most (\\d+); lower it") as caught:
        run(table, corpus, tmp_path / "out", "--vocab-size", "5000")
    most = str(caught.value).split("at most ")[1].split(";")[0]
    run(table, corpus, tmp_path / "out", "--vocab-size", most)
    assert len((tmp_path / "out" / "dict.spm.txt").read_text().splitlines()) == int(most)
    with pytest.raises(UserError, match="--vocab-size 3: the transcripts allow at least 28, one piece per character"):
        run(table, corpus, tmp_path / "out", "--vocab-size", "3")


def test_which_split_trains(table: Path, write_table, corpus: Path, tmp_path: Path):
    with pytest.raises(UserError, match="there is no split dev, only train, test; name the splits with --train-split"):
        run(table, corpus, tmp_path / "out", "--vocab-size", "30", "--train-split", "dev")
    rows = [("a.wav", "GO ON", "train-clean-100"), ("deep/b.flac", "AND ON", "train-other-500")]
    run(write_table(*rows), corpus, tmp_path / "out", "--vocab-size", "29")
    with pytest.raises(UserError, match="there is no split train, only dev"):
        run(write_table(("a.wav", "GO", "dev")), corpus, tmp_path / "out", "--vocab-size", "30")


def test_fewer_frames_are_needed_than_for_letters():
    pieces = train_pieces(TEXTS, 32, LETTERS.alphabet)
    text = "ON AND ON"
    units = pieces.split(text)
    assert len(units) < len(text) and "".join(units) == "▁ON▁AND▁ON"
    samples = 400 + 320 * (len(units) - 1)  # as many frames as pieces
    assert list(feasibility_faults(text, samples, pieces)) == []
    (fault,) = feasibility_faults(text, samples - 320, pieces)
    assert re.fullmatch(rf"it needs {len(units)} frames, [\d.]+ s have {len(units) - 1}", fault.detail)


def test_frames_needed_is_where_ctc_becomes_finite(table: Path, corpus: Path, tmp_path: Path):
    """By torch's loss on fairseq's targets, blank 0: a repeated piece costs a blank."""
    run(table, corpus, tmp_path / "out", "--vocab-size", "29")
    dictionary = Dictionary.load(str(tmp_path / "out" / "dict.spm.txt"))
    line = (tmp_path / "out" / "test.spm").read_text().strip()
    assert line == "▁ J A Z Z ▁ Q U I Z"
    target = dictionary.encode_line(line, append_eos=False, add_if_not_exist=False).unsqueeze(0)
    for frames, finite in ((11, True), (10, False)):
        log_probs = torch.zeros(frames, 1, len(dictionary)).log_softmax(-1)  # (T, B, V)
        loss = torch.nn.functional.ctc_loss(log_probs, target, torch.tensor([frames]), torch.tensor([10]), blank=0)
        assert bool(loss.isfinite()) is finite
    pieces = Pieces((tmp_path / "out" / "spm.model").read_bytes(), "spm.model")
    assert not list(feasibility_faults("JAZZ QUIZ", 400 + 10 * 320, pieces))
    assert list(feasibility_faults("JAZZ QUIZ", 400 + 9 * 320, pieces))


def test_invalid_transcripts_are_listed_before_pieces_are_trained(write_table, corpus: Path, tmp_path: Path):
    table = write_table(("a.wav", "go", "train"), ("none.wav", "GO", "train"))
    with pytest.raises(UserError, match="refused: 2 of 2 rows \\(missing file 1, character outside the alphabet 1\\)"):
        run(table, corpus, tmp_path / "out", "--vocab-size", "30")


def foreign_model(folder: Path, **options: object) -> Path:
    """Train a model that is not ours."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text.replace("G", "") for text in TEXTS]),
        model_prefix=str(folder / "foreign"),
        minloglevel=2,
        **options,
    )
    return folder / "foreign.model"


def test_a_model_without_a_letter(table: Path, corpus: Path, tmp_path: Path):
    model = foreign_model(tmp_path, vocab_size=16, character_coverage=1.0)
    with pytest.raises(UserError, match=r"'G' \(U\+0047 .*first .*table.tsv:2; the pieces lack it"):
        run(table, corpus, tmp_path / "out", "--spm-model", str(model))


def test_a_model_that_rewrites_text(write_table, corpus: Path, tmp_path: Path):
    model = foreign_model(tmp_path, vocab_size=16, normalization_rule_name="nmt_nfkc_cf")
    with pytest.raises(UserError, match="foreign.model turns it into 'on'"):
        run(write_table(("a.wav", "ON", "train")), corpus, tmp_path / "out", "--spm-model", str(model))


def test_a_model_with_fairseqs_symbols(table: Path, corpus: Path, tmp_path: Path):
    model = foreign_model(tmp_path, vocab_size=17, user_defined_symbols=["<pad>"])
    with pytest.raises(UserError, match="has the piece '<pad>', which fairseq's dictionary cannot hold"):
        run(table, corpus, tmp_path / "out", "--spm-model", str(model))


def test_files_that_are_not_a_model(table: Path, corpus: Path, tmp_path: Path):
    (tmp_path / "x.model").write_bytes(b"no model")
    with pytest.raises(UserError, match="x.model: is not a SentencePiece model"):
        run(table, corpus, tmp_path / "out", "--spm-model", str(tmp_path / "x.model"))
    with pytest.raises(UserError, match="none.model: cannot be read \\(No such file"):
        run(table, corpus, tmp_path / "out", "--spm-model", str(tmp_path / "none.model"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--unit", "spm"], "--unit spm needs either --vocab-size, to train pieces, or --spm-model"),
        (["--unit", "spm", "--vocab-size", "30", "--spm-model", "m"], "--unit spm needs either"),
        (["--unit", "ltr", "--vocab-size", "30"], "--vocab-size and --spm-model need --unit spm"),
    ],
)
def test_inconsistent_options(table: Path, corpus: Path, tmp_path: Path, options, sentence: str):
    with pytest.raises(UserError, match=sentence):
        run(table, corpus, tmp_path / "out", *options)


def test_a_missing_library_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UserError, match="--unit spm needs sentencepiece: pip install sentencepiece"):
        train_pieces(TEXTS, 30, LETTERS.alphabet)
