import numpy as np
import pytest
import soundfile
from fairseq.data import Dictionary, HubertDataset

from fairseq_skd.demo.pretraining_labels import deltas, fit_clusters, label_splits, main, mfcc, mfcc_with_deltas
from fairseq_skd.errors import UserError


def test_deltas_of_a_ramp_are_its_slope():
    ramp = np.arange(10, dtype=np.float32)[:, None] * np.array([1.0, -3.0], np.float32)
    np.testing.assert_allclose(deltas(ramp)[2:-2], np.tile([1.0, -3.0], (6, 1)), rtol=1e-6)


def test_deltas_by_hand():
    # (1 * (c[t+1] - c[t-1]) + 2 * (c[t+2] - c[t-2])) / 10, with 0 before the start, 5 after the end
    features = np.array([[0.0], [1.0], [5.0]], np.float32)
    expected = [[(1 - 0 + 2 * (5 - 0)) / 10], [(5 - 0 + 2 * (5 - 0)) / 10], [(5 - 1 + 2 * (5 - 0)) / 10]]
    np.testing.assert_allclose(deltas(features), expected, rtol=1e-6)


@pytest.mark.parametrize(("length", "reach"), [(1, 2), (3, 2), (50, 2), (50, 1), (50, 4)])
def test_deltas_against_least_squares(length, reach):
    features = np.random.default_rng(length).normal(size=(length, 3)).astype(np.float32)
    times = np.arange(-reach, reach + 1)
    expected = np.empty((length, 3))
    for t in range(length):
        window = features[np.clip(t + times, 0, length - 1)].astype(np.float64)
        expected[t] = np.polyfit(times, window, 1)[0]
    np.testing.assert_allclose(deltas(features, reach), expected, atol=1e-5)


def test_deltas_without_frames():
    assert deltas(np.zeros((0, 13), np.float32)).shape == (0, 13)


@pytest.mark.parametrize(("samples", "frames"), [(399, 0), (400, 1), (559, 1), (560, 2), (16000, 98)])
def test_frames_lie_within_the_audio(samples, frames):
    waveform = np.random.default_rng(0).normal(scale=0.1, size=samples).astype(np.float32)
    assert mfcc_with_deltas(waveform, 16000).shape == (frames, 39)


def test_a_frame_depends_only_on_its_own_25_ms():
    waveform = np.random.default_rng(0).normal(scale=0.1, size=8000).astype(np.float32)
    changed = waveform.copy()
    changed[: 160 * 10] = 0.0
    different = np.abs(mfcc(waveform, 16000) - mfcc(changed, 16000)).max(axis=1) > 0
    assert different.tolist() == [True] * 10 + [False] * (len(different) - 10)


def test_mfcc_is_deterministic():
    waveform = np.random.default_rng(0).normal(scale=0.1, size=8000).astype(np.float32)
    np.testing.assert_array_equal(mfcc_with_deltas(waveform, 16000), mfcc_with_deltas(waveform, 16000))


@pytest.fixture
def manifests(tmp_path):
    """Write manifests with four utterances of train and one of valid: noise, then silence."""
    generator = np.random.default_rng(0)
    audio, folder = tmp_path / "audio", tmp_path / "manifest"
    audio.mkdir()
    folder.mkdir()
    for split, count in (("train", 4), ("valid", 1)):
        lines = [str(audio)]
        for i in range(count):
            samples = 8000 + 2001 * i
            waveform = np.concatenate(
                [generator.normal(scale=0.1, size=samples // 2), np.zeros(samples - samples // 2)]
            )
            soundfile.write(audio / f"{split}{i}.flac", waveform, 16000)
            lines.append(f"{split}{i}.flac\t{samples}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_labels_have_one_number_per_frame(manifests):
    label_splits(manifests, manifests, ["train", "valid"], clusters=4)
    for split in ("train", "valid"):
        sizes = [int(line.split("\t")[1]) for line in (manifests / f"{split}.tsv").read_text().splitlines()[1:]]
        lines = (manifests / f"{split}.km").read_text().splitlines()
        assert [len(line.split()) for line in lines] == [1 + (size - 400) // 160 for size in sizes]
        assert {int(label) for line in lines for label in line.split()} <= set(range(4))


def test_dictionary_has_every_cluster_with_its_count(manifests):
    label_splits(manifests, manifests, ["train", "valid"], clusters=4)
    entries = [line.split() for line in (manifests / "dict.km.txt").read_text().splitlines()]
    labels = (manifests / "train.km").read_text().split()
    assert [(int(symbol), int(count)) for symbol, count in entries] == [(k, labels.count(str(k))) for k in range(4)]


def test_noise_and_silence_have_different_labels(manifests):
    label_splits(manifests, manifests, ["train", "valid"], clusters=2)
    labels = (manifests / "valid.km").read_text().split()
    assert len(set(labels[3:20])) == 1  # noise
    assert len(set(labels[-15:-3])) == 1  # silence
    assert labels[10] != labels[-10]


def test_fairseq_reads_the_labels(manifests, tmp_path):
    out = tmp_path / "labels"
    label_splits(manifests, out, ["train"], clusters=4)
    dictionary = Dictionary.load(str(out / "dict.km.txt"))
    dataset = HubertDataset(
        str(manifests / "train.tsv"),
        sample_rate=16000,
        label_paths=[str(out / "train.km")],
        label_rates=100.0,
        pad_list=[dictionary.pad()],
        eos_list=[dictionary.eos()],
        label_processors=[lambda line: dictionary.encode_line(line, append_eos=False, add_if_not_exist=False)],
        store_labels=False,
    )
    batch = dataset.collater([dataset[0], dataset[2]])
    assert batch["net_input"]["source"].shape == (2, 8000)
    assert batch["target_list"][0].shape == (2, 48)
    assert dictionary.unk() not in batch["target_list"][0]


def test_labels_are_deterministic(manifests, tmp_path):
    for name in ("first", "second"):
        label_splits(manifests, tmp_path / name, ["train", "valid"], clusters=4, max_frames=100)
    for name in ("train.km", "valid.km", "dict.km.txt"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_command(manifests, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["labels", str(manifests), "--clusters", "3", "--splits", "train"])
    main()
    assert (manifests / "train.km").is_file()
    assert not (manifests / "valid.km").exists()
    assert str(manifests) in capsys.readouterr().out


def test_missing_manifest(tmp_path):
    with pytest.raises(UserError, match=r"^--splits train: .*train\.tsv does not exist; the folder has no manifest$"):
        label_splits(tmp_path, tmp_path, ["train"], clusters=4)


def test_missing_audio(manifests):
    (manifests.parent / "audio" / "train1.flac").unlink()
    with pytest.raises(UserError, match=r"train1\.flac cannot be read as audio"):
        label_splits(manifests, manifests, ["train"], clusters=4)
    assert not (manifests / "train.km").exists()


def test_audio_of_two_channels(manifests):
    soundfile.write(manifests.parent / "audio" / "train1.flac", np.zeros((8000, 2)), 16000)
    with pytest.raises(UserError, match=r"train1\.flac has 2 channels: mix it down to one"):
        label_splits(manifests, manifests, ["train"], clusters=4)


def test_audio_shorter_than_a_frame(manifests):
    soundfile.write(manifests.parent / "audio" / "train1.flac", np.zeros(399), 16000)
    with pytest.raises(UserError, match=r"train1\.flac is shorter than one frame of 25 ms"):
        label_splits(manifests, manifests, ["train"], clusters=4)


def test_more_clusters_than_frames():
    with pytest.raises(UserError, match=r"50 clusters need 50 frames, the audio has 20: lower --clusters"):
        fit_clusters([np.zeros((10, 39), np.float32)] * 2, clusters=50, seed=1, max_frames=100)


def test_long_steps_show_their_progress(at_once, manifests, tmp_path, capsys):
    label_splits(manifests, tmp_path / "labels", ["train"], clusters=3)
    said = capsys.readouterr().err
    assert "MFCCs of train: 4 of 4 (100 %)" in said and "finding 3 clusters ..." in said
