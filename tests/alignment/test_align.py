"""The align command: from a checkpoint and a corpus to files."""

import dataclasses
import shutil
import typing
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from fairseq_skd import align, infer
from fairseq_skd.alignment.config import AlignSettings
from fairseq_skd.errors import UserError
from fairseq_skd.scoring.bootstrap import rate_interval
from tests.alignment.running import BOTH, run
from tests.builders import write_corpus
from tests.decoding.checkpoints import CONFIG, FULL, STUDENT, set_constant_symbols, write_fine_tuned

pytestmark = pytest.mark.usefixtures("here")


def without_paths(found):
    """Drop the checkpoint paths, so that runs of copied checkpoints compare."""
    kept = {key: value for key, value in found.items() if key not in ("teacher", "student")}
    for who in ("teacher", "student"):
        kept[who] = {key: value for key, value in found[who].items() if key != "checkpoint"}
    return kept


def hypotheses(corpus, checkpoint, layer):
    """Decode with infer; returns the units of each utterance."""
    paths = [f"task.data={corpus}", f"common_eval.path={checkpoint}", f"common_eval.results_path=d{layer}"]
    infer.main([*paths, f"decoding.layer={layer}", "dataset.num_workers=0"])
    lines = Path(f"d{layer}", "hypo.units").read_text().splitlines()
    return [line.rpartition(" (None-")[0].split() for line in lines]


@pytest.fixture(scope="module")
def both(tmp_path_factory, corpus, hubert):
    """Run align on all five utterances."""
    out = tmp_path_factory.mktemp("both") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fairseq_skd.alignment.figures.DPI", 40)  # quicker
        return run(corpus, f"common_eval.path={hubert}", "align.examples=[0,1,2,3,4]", out=out), out


@pytest.mark.slow
def test_spikes_spell_what_infer_decodes(both, corpus, hubert):
    found, _ = both
    assert (found["teacher"]["exit_layer"], found["student"]["exit_layer"]) == (FULL, STUDENT)
    for who, layer in (("teacher", FULL), ("student", STUDENT)):
        said = [[spike["symbol"] for spike in example[who]] for example in found["examples"]]
        assert found[f"{who}_spikes"] == sum(map(len, said))
        spelt = [[symbol for symbol in units if symbol != "</s>"] for units in said]  # fairseq writes no </s>
        assert spelt == hypotheses(corpus, hubert, layer)
        assert all(spelt)


@pytest.mark.slow
def test_totals_follow_from_the_spikes_of_the_examples(both):
    """All metrics, recomputed from the spikes in align.json as sets of (frame, symbol)."""
    found, _ = both
    said = {}
    for who in ("teacher", "student"):
        said[who] = [
            {(t, spike["symbol"]) for spike in example[who] for t in range(spike["start"], spike["end"])}
            for example in found["examples"]
        ]
    frames = [1 + (round(16000 * example["seconds"]) - 400) // 320 for example in found["examples"]]
    differing = [
        len({t for t, _ in ours ^ theirs}) for ours, theirs in zip(said["teacher"], said["student"], strict=True)
    ]
    assert found["by_utterance"]["frames"] == frames
    assert found["by_utterance"]["differing_frames"] == differing
    assert found["frame_disagreement"]["value"] == pytest.approx(sum(differing) / sum(frames))
    for who, cells in said.items():
        assert found[who]["blank_share"] == pytest.approx(1 - sum(map(len, cells)) / sum(frames))
    lost = missed = spikes = 0
    for example, theirs in zip(found["examples"], said["student"], strict=True):
        for spike in example["teacher"]:
            there = [(t, spike["symbol"]) in theirs for t in range(spike["start"], spike["end"])]
            spikes, lost, missed = spikes + 1, lost + (not all(there)), missed + (not any(there))
            assert spike["other"] == ("same" if all(there) else "partly" if any(there) else "elsewhere")
    assert found["spike_disagreement"]["value"] == pytest.approx(lost / spikes)
    assert found["spike_miss"]["value"] == pytest.approx(missed / spikes)
    assert 0 < missed < lost <= spikes
    assert sum(row["lost"] for row in found["by_symbol"]) == lost


def test_files(both, corpus):
    found, out = both
    assert found["frame_ms"] == pytest.approx(20)
    assert found["utterances"] == len(found["examples"]) == 5
    for example in found["examples"]:
        assert (out / example["figure"]).read_bytes()[:4] == b"\x89PNG"
        kept, rate = soundfile.read(out / example["audio"])
        original, _ = soundfile.read(corpus / "audio" / example["name"])
        assert rate == 16000
        np.testing.assert_array_equal(kept, original)
    assert (out / found["figures"]["offsets"]).read_bytes()[:4] == b"\x89PNG"
    assert [example["text"] for example in found["examples"]][:2] == ["A NO", "TEN"]


@pytest.mark.slow
def test_the_bootstrap_draws_speakers_if_the_manifest_names_them(both, corpus, hubert, tmp_path, capsys):
    expected, _ = both
    assert expected["interval"] == {
        "level": 0.95,
        "resampled": "utterances",
        "speakers": None,
        "resamples": 200,
        "seed": 1,
    }
    data = shutil.copytree(corpus, tmp_path / "data")
    speakers = ["ann", "bob", "bob", "cy", "ann"]
    (data / "test.spk").write_text("".join(f"{speaker}\n" for speaker in speakers))
    found = run(data, f"common_eval.path={hubert}")
    assert found["interval"] == expected["interval"] | {"resampled": "speakers", "speakers": 3}
    counts = found["by_utterance"]
    assert counts == expected["by_utterance"]
    interval = rate_interval(counts["differing_frames"], counts["frames"], speakers, resamples=200, seed=1)
    assert found["frame_disagreement"] == interval._asdict() != expected["frame_disagreement"]
    assert "\nintervals: bootstrap over 3 speakers\n" in capsys.readouterr().out
    (data / "test.spk").write_text("ann\n" * 5)
    alone = run(data, f"common_eval.path={hubert}")
    assert alone["frame_disagreement"] == expected["frame_disagreement"]
    assert "over utterances, because there is only one speaker\n" in capsys.readouterr().out
    (data / "test.spk").write_text("ann\n" * 4)
    with pytest.raises(UserError, match=r"test\.spk has 4 lines, .*test\.tsv lists 5 utterances"):
        run(data, f"common_eval.path={hubert}")


@pytest.mark.slow
def test_a_copy_as_separate_teacher_gives_the_same_metrics(both, corpus, hubert, tmp_path):
    """A separate teacher is read and run by itself; a copy must give the same metrics."""
    twin = shutil.copy(hubert, tmp_path / "twin.pt")
    found = run(
        corpus,
        f"common_eval.path={hubert}",
        f"align.teacher_path={twin}",
        f"align.layer={STUDENT}",
    )
    assert found["teacher"]["checkpoint"] == str(twin)
    assert not torch.is_inference_mode_enabled()  # two interleaved models leave no global setting
    assert not torch.backends.cudnn.deterministic
    expected, ours = without_paths(both[0]), without_paths(found)
    for key in ("frame_disagreement", "spike_disagreement", "spike_miss", "offset", "by_symbol", "by_utterance"):
        assert ours[key] == expected[key]


@pytest.mark.faults
@pytest.mark.slow
def test_batches_do_not_change_the_comparison(corpus, hubert):
    """With a group-norm extractor: counts are equal, entropies to six digits."""
    together, alone = (
        without_paths(run(corpus, f"common_eval.path={hubert}", f"dataset.batch_size={size}")) for size in (5, 1)
    )
    assert (together.pop("batch_size"), alone.pop("batch_size")) == (5, 1)
    assert together["teacher_spikes"] > 0
    for who in ("teacher", "student"):
        assert together.pop(who) == pytest.approx(alone.pop(who), rel=1e-6)
    assert together == alone


@pytest.mark.slow
def test_a_model_agrees_with_itself(corpus, hubert, tmp_path):
    twin = shutil.copy(hubert, tmp_path / "twin.pt")
    found = run(corpus, f"common_eval.path={hubert}", f"align.teacher_path={twin}")
    assert (found["teacher"]["exit_layer"], found["student"]["exit_layer"]) == (FULL, FULL)
    for name in ("frame_disagreement", "spike_disagreement", "spike_miss"):
        assert found[name] == {"value": 0, "low": 0, "high": 0}
    assert found["offset"]["within_ms"]["0"] == 1
    assert found["offset"]["matched"] == found["teacher_spikes"]


@pytest.mark.slow
def test_another_normalization(corpus, hubert, tmp_path):
    """Each checkpoint gets audio scaled as in its own training."""
    other = write_fine_tuned(tmp_path / "normalising.pt", "wav2vec2", normalize=True)
    found = run(corpus, f"common_eval.path={hubert}", f"align.teacher_path={other}")
    assert found["teacher_spikes"] > 0
    swapped = run(corpus, f"common_eval.path={other}", f"align.teacher_path={hubert}")
    assert found["frame_disagreement"] == swapped["frame_disagreement"]
    assert found["teacher_spikes"] == swapped["student_spikes"]


@pytest.mark.parametrize(("symbols", "disagreement"), [(("T", "E"), 1), (("<s>", "<s>"), 0)])
@pytest.mark.slow
def test_extremes(corpus, hubert, tmp_path, capsys, symbols, disagreement):
    constant = set_constant_symbols(hubert, tmp_path / "constant.pt", dict(zip(BOTH, symbols, strict=True)))
    found = run(corpus, f"common_eval.path={constant}")
    assert found["frame_disagreement"]["value"] == disagreement
    assert found["offset"]["matched"] == 0
    assert found["figures"] == {}  # no offset, no histogram
    assert found["spike_disagreement"]["value"] == (1 if disagreement else None)
    printed = capsys.readouterr().out
    assert "NaN" not in Path("out/align.json").read_text()
    assert f"frame disagreement {100 * disagreement:.2f} % " in " ".join(printed.split())


@pytest.mark.slow
def test_history_is_in_order_of_updates(corpus, hubert, tmp_path, capsys, at_once):
    """Files named by update and by epoch; two files of one update count once."""
    runs = tmp_path / "run"
    runs.mkdir()
    silent = set_constant_symbols(hubert, tmp_path / "silent.pt", dict.fromkeys(BOTH, "<s>"))
    shutil.copy(silent, runs / "checkpoint_1_20.pt")
    shutil.copy(hubert, runs / "checkpoint_10_300.pt")
    state = torch.load(silent, weights_only=True)
    for epoch, updates in ((2, 100), (10, 300)):
        state["optimizer_history"] = [{"num_updates": 1}, {"num_updates": updates}]
        torch.save(state, runs / f"checkpoint{epoch}.pt")
    for other in ("checkpoint_best.pt", "checkpoint_last.pt"):
        (runs / other).write_bytes(b"not read")
    found = run(corpus, f"align.history={runs}")
    assert [entry["updates"] for entry in found["history"]] == [20, 100, 300]
    assert [entry["teacher"]["blank_share"] == 1 for entry in found["history"]] == [True, True, False]
    assert found["student"]["checkpoint"].endswith("checkpoint_10_300.pt")
    assert found["history"][-1]["frame_disagreement"] == found["frame_disagreement"]
    assert (Path("out") / found["figures"]["history"]).is_file()
    printed = capsys.readouterr()
    rows = [line.split()[0] for line in printed.out.splitlines() if line.strip()]
    assert rows[:4] == ["updates", "20", "100", "300"]
    for progress in ("reading checkpoints: 4 of 4", "measuring the history: 3 of 3", "building the encoder ..."):
        assert progress in printed.err


@pytest.mark.slow
def test_two_students_of_one_checkpoint(corpus, models):
    found = run(corpus, f"common_eval.path={models['two']}", "align.teacher_layer=2", "align.layer=1")
    assert (found["teacher"]["exit_layer"], found["student"]["exit_layer"]) == (2, 1)


def test_help_shows_an_example_and_every_key(capsys):
    with pytest.raises(SystemExit):
        align.main(["--help"])
    text = capsys.readouterr().out
    assert "python -m fairseq_skd.align task.data=/data/manifests" in text
    for key in ("layer", "teacher_path", "teacher_layer", "history", "examples", "resamples"):
        assert f"align.{key} (" in text


def test_every_key_is_listed_in_the_config():
    listed = yaml.safe_load((CONFIG.parent / "align" / "align.yaml").read_text())
    sections = typing.get_type_hints(AlignSettings)
    assert listed == {section: dataclasses.asdict(sections[section]()) for section in sections}


@pytest.mark.slow
def test_a_subset_with_fewer_than_three_utterances(hubert, tmp_path):
    """With align.examples=null, all of them are examples."""
    corpus = write_corpus(tmp_path / "c", {"test": [("A", 0.3), ("E", 0.2)]})
    found = run(corpus, f"common_eval.path={hubert}", "align.examples=null")
    assert len(found["examples"]) == 2 and (Path("out") / "spikes-1.png").is_file()


@pytest.mark.slow
def test_silence_and_the_shortest_audio(hubert, tmp_path):
    """Figures and metrics work for one frame and for digital silence."""
    corpus = write_corpus(tmp_path / "c", {"test": [("A", 0.026), ("E", 0.1)]})
    soundfile.write(corpus / "audio" / "test1.wav", np.zeros(1600), 16000, subtype="PCM_16")
    found = run(corpus, f"common_eval.path={hubert}", "align.examples=[0,1]")
    assert found["by_utterance"]["frames"] == [1, 4]
