"""Word pieces from a table to word error rates: manifest, fairseq-hydra-train, infer."""

import re
from pathlib import Path

import pytest
import sentencepiece
import torch

from fairseq_skd import infer, manifest
from tests.builders import write_corpus, write_pretrained
from tests.end_to_end.training import CORPUS, SMALL, logged, train

PIECES = 30


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests in word pieces, by the command."""
    folder = tmp_path_factory.mktemp("pieces")
    write_corpus(folder / "corpus", CORPUS)
    rows = [
        f"audio/{split}{index}.wav\t{text}\t{split}\n"
        for split, utterances in CORPUS.items()
        for index, (text, _) in enumerate(utterances)
    ]
    (folder / "table.tsv").write_text("".join(["path\ttext\tsplit\n", *rows]))
    arguments = ["table", str(folder / "table.tsv"), "--audio-root", str(folder / "corpus"), "--out"]
    manifest.main([*arguments, str(folder / "data"), "--unit", "spm", "--vocab-size", str(PIECES)])
    return folder / "data"


@pytest.fixture(scope="module")
def trained(data: Path) -> tuple[Path, str]:
    """A run of so few and small updates that its outputs are still of all kinds, not blanks only."""
    folder = data.parent / "run"
    overrides = [*SMALL, "optimization.max_update=2", "optimization.lr=[1e-6]", "task.labels=[spm]"]
    overrides += ["criterion.post_process=sentencepiece", f"task.data={data}"]
    overrides += [f"model.w2v_path={write_pretrained(data.parent / 'hubert.pt')}", "dataset.validate_interval=1"]
    result = train(folder, overrides)
    assert result.returncode == 0, result.stdout[-3000:]
    return folder, result.stdout


@pytest.mark.slow
def test_outputs_are_the_blank_fairseqs_specials_and_the_pieces(trained: tuple[Path, str]):
    state = torch.load(trained[0] / "checkpoint_last.pt", weights_only=True)["model"]
    assert state["w2v_encoder.proj.weight"].shape[0] == 4 + PIECES
    valid = logged(trained[1], "valid")[-1]
    assert valid["valid_infeasible"] == 0


@pytest.mark.parametrize(("layer", "name"), [(0, "valid_wer"), (2, "valid_student_wer")])
@pytest.mark.slow
def test_decoding_counts_the_words_that_validation_counts(data: Path, trained, tmp_path: Path, layer: int, name: str):
    folder, output = trained
    arguments = [f"decoding.layer={layer}", "common.cpu=true"]
    arguments += [f"task.data={data}", f"common_eval.path={folder / 'checkpoint_last.pt'}", "dataset.gen_subset=valid"]
    arguments += [
        f"common_eval.results_path={tmp_path}",
        "dataset.num_workers=0",
    ]
    arguments += ["dataset.max_tokens=32000"]
    infer.main(arguments)
    files = {
        kind: [re.sub(r" ?\(None-\d+\)$", "", line) for line in (tmp_path / kind).read_text().splitlines()]
        for kind in ("ref.word", "ref.units", "hypo.word", "hypo.units")
    }
    assert files["ref.word"] == (data / "valid.wrd").read_text().splitlines()
    assert files["ref.units"] == (data / "valid.spm").read_text().splitlines()
    peer = sentencepiece.SentencePieceProcessor(model_file=str(data / "spm.model"))
    assert any(files["hypo.units"]), "an empty hypothesis would show nothing"
    for units, words in zip(files["hypo.units"], files["hypo.word"], strict=True):
        pieces = [unit for unit in units.split() if not unit.startswith("<")]
        if pieces == units.split():
            assert words.split() == peer.decode_pieces(pieces).split()
    rate = float(re.search(r'"wer": ([\d.]+)', (tmp_path / "summary.json").read_text()).group(1))
    assert rate == pytest.approx(logged(output, "valid")[-1][name], abs=0.01)
