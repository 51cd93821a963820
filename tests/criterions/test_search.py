"""Beam search in validation."""

import pickle

import pytest
import torch

from fairseq_skd.criterions import SkdCtcCriterion
from tests.builders import CtcTask, batch
from tests.criterions.criterion import criterion, logged
from tests.search.language_models import write_arpa


def beam_criterion(folder, lexicon="NO\tN O |\nON\tO N |\nA\tA |\n", **changes) -> SkdCtcCriterion:
    pytest.importorskip("flashlight.lib.text", reason="flashlight-text is not installed")
    (folder / "lexicon.txt").write_text(lexicon)
    files = {"wer_kenlm_model": str(write_arpa(folder)), "wer_lexicon": str(folder / "lexicon.txt")}
    return criterion(**files, **changes)


class Speaker(torch.nn.Module):
    """A model whose teacher outputs A, then ON slightly above NO; its student outputs blanks."""

    num_updates = 0

    def forward(self, **_):
        index = CtcTask().target_dictionary.index
        teacher = torch.zeros(8, 1, 32)
        for frame, (loud, soft) in enumerate(["AA", "||", "ON", "--", "NO", "--", "||", "--"]):
            for symbol, height in ((soft, 8.0), (loud, 8.5)):
                teacher[frame, 0, 0 if symbol == "-" else index(symbol)] = height
        student = torch.zeros(8, 1, 32)
        student[..., 0] = 9.0
        return {"exit_logits": {4: teacher, 2: student}, "frame_lengths": torch.tensor([8])}


def test_beam_search_in_validation(tmp_path):
    """wer scores the beam search, raw_wer the best path, as in fairseq's ctc; the loss stays."""
    sample = batch([0.2], ["A NO"])
    searching = beam_criterion(tmp_path)
    loss, _, log = searching(Speaker().eval(), sample)
    plain_loss, _, plain = criterion()(Speaker().eval(), sample)
    assert torch.equal(loss, plain_loss)
    assert (log["raw_word_errors_4"], log["word_errors_4"], log["words"]) == (1, 0, 2)
    assert (log["raw_word_errors_2"], log["unit_errors_4"]) == (2, plain["unit_errors_4"])
    assert plain["word_errors_4"] == 1 and "raw_word_errors_4" not in plain
    values = logged([log])
    assert (values["wer"], values["raw_wer"], values["student_raw_wer"]) == (0, 50, 100)
    assert values["student_wer"] == 50 * log["word_errors_2"]
    assert not {"raw_wer", "student_raw_wer"} & set(logged([plain]))


def test_weights_of_the_beam_search(tmp_path):
    sample = batch([0.2], ["A NO"])
    weightless = beam_criterion(tmp_path, wer_lm_weight=0.0, wer_word_score=0.0)
    assert weightless(Speaker().eval(), sample)[2]["word_errors_4"] == 1
    quiet = beam_criterion(tmp_path, wer_sil_weight=20.0)
    assert quiet(Speaker().eval(), sample)[2]["word_errors_4"] == 2


def test_training_does_not_search_and_the_search_is_not_a_module(tmp_path):
    searching = beam_criterion(tmp_path)
    log = searching(Speaker().train(), batch([0.2], ["A NO"]))[2]
    assert not [name for name in log if "word_errors" in name]
    assert not list(searching.parameters()) and not searching.state_dict()
    again = pickle.loads(pickle.dumps(searching.search))  # noqa: S301
    assert again.options == searching.search.options
