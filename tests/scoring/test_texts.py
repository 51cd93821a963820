import pytest

from fairseq_skd.errors import UserError
from fairseq_skd.scoring.transcripts import utterance_speakers


def test_speakers_of_decoded_utterances(tmp_path):
    """The third utterance could not be read. A manifest that was shortened since is refused."""
    (tmp_path / "test.tsv").write_text("/audio\n" + "a.wav\t16000\n" * 4)
    (tmp_path / "hypo.word").write_text("GO (ON) (None-0)\nON (None-1)\n (None-3)\n")
    assert utterance_speakers(tmp_path, tmp_path / "test.tsv") is None
    (tmp_path / "test.spk").write_text("ann\nbob\ncy\ndee\n")
    assert utterance_speakers(tmp_path, tmp_path / "test.tsv") == ["ann", "bob", "dee"]
    (tmp_path / "test.tsv").write_text("/audio\n" + "a.wav\t16000\n" * 3)
    (tmp_path / "test.spk").write_text("ann\nbob\ncy\n")
    with pytest.raises(UserError, match="lists 3 utterances, .* holds more: decode into it again"):
        utterance_speakers(tmp_path, tmp_path / "test.tsv")
