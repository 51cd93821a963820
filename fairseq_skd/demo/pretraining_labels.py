"""Frame labels for HuBERT pretraining: k-means over MFCCs, in the files of ``hubert_pretraining``.

For each ``<split>.tsv`` of a manifest folder it writes ``<split>.km``: one line per utterance, one
cluster number per 10 ms (``task.label_rate=100``). It also writes ``dict.km.txt`` with the count of
each cluster. The clusters are fitted on the first split.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import numpy.typing as npt
import soundfile
from sklearn.cluster import MiniBatchKMeans

from fairseq_skd.errors import UserError, run_command
from fairseq_skd.files.disk import replacing
from fairseq_skd.files.progress import tracked, working
from fairseq_skd.files.subset import read_manifest

CEPSTRA = 13
Features = npt.NDArray[np.float32]


def mfcc(waveform: npt.NDArray[np.float32], sample_rate: int) -> Features:
    """Compute (T, 13) MFCCs of ``waveform`` (samples,) in [-1, 1]: 25 ms windows every 10 ms.

    Each window lies within the audio, so frame 2t starts at the same sample as HuBERT's frame t.
    Audio shorter than 25 ms has no frame: (0, 13).
    """
    options = kaldi_native_fbank.MfccOptions()
    options.frame_opts.samp_freq = sample_rate
    options.frame_opts.dither = 0.0  # the same audio gives the same labels
    options.frame_opts.snip_edges = True
    options.num_ceps = CEPSTRA
    options.use_energy = False
    computer = kaldi_native_fbank.OnlineMfcc(options)
    computer.accept_waveform(sample_rate, (waveform * 32768.0).tolist())  # Kaldi's scale: 16-bit integers
    computer.input_finished()
    frames = [computer.get_frame(t) for t in range(computer.num_frames_ready)]
    return np.stack(frames).astype(np.float32) if frames else np.zeros((0, CEPSTRA), np.float32)


def deltas(features: Features, reach: int = 2) -> Features:
    """Compute the slope of each feature over time, (T, C) -> (T, C).

    ``d[t] = sum_n n * (c[t + n] - c[t - n]) / (2 * sum_n n^2)`` for n from 1 to ``reach``: the
    least-squares line through ``2 * reach + 1`` frames. The first and last frame are repeated
    beyond the ends.
    """
    length = len(features)
    if length == 0:
        return features.copy()
    padded = np.pad(features, ((reach, reach), (0, 0)), mode="edge")
    slope = np.zeros_like(features)
    for n in range(1, reach + 1):
        slope += n * (padded[reach + n : reach + n + length] - padded[reach - n : reach - n + length])
    return slope / np.float32(2 * sum(n * n for n in range(1, reach + 1)))


def mfcc_with_deltas(waveform: npt.NDArray[np.float32], sample_rate: int) -> Features:
    """Compute (T, 39) MFCCs, deltas and delta-deltas of ``waveform`` (samples,)."""
    static = mfcc(waveform, sample_rate)
    first = deltas(static)
    return np.concatenate([static, first, deltas(first)], axis=1)


def features_of(file: Path) -> Features:
    """Compute (T, 39) MFCCs with deltas of an audio file.

    Raises:
        UserError: the file cannot be read, has several channels, or is shorter than one frame.
    """
    try:
        waveform, sample_rate = soundfile.read(file, dtype="float32")
    except (OSError, soundfile.SoundFileError) as error:
        raise UserError(f"{file} cannot be read as audio ({error}): replace it or leave it out") from None
    if waveform.ndim != 1:
        raise UserError(f"{file} has {waveform.shape[1]} channels: mix it down to one")
    features = mfcc_with_deltas(waveform, sample_rate)
    if len(features) == 0:
        raise UserError(f"{file} is shorter than one frame of 25 ms: leave it out of the manifest")
    return features


def fit_clusters(features: list[Features], clusters: int, seed: int, max_frames: int) -> MiniBatchKMeans:
    """Fit k-means to all frames, or to ``max_frames`` random ones.

    Raises:
        UserError: there are fewer frames than clusters.
    """
    frames = np.concatenate(features)
    if len(frames) < clusters:
        raise UserError(f"{clusters} clusters need {clusters} frames, the audio has {len(frames)}: lower --clusters")
    if len(frames) > max_frames:
        chosen = np.random.default_rng(seed).choice(len(frames), max_frames, replace=False)
        frames = frames[np.sort(chosen)]
    model = MiniBatchKMeans(
        clusters, batch_size=10_000, max_iter=100, n_init=5, reassignment_ratio=0.0, random_state=seed
    )
    return model.fit(frames)


def label_splits(
    manifests: Path, out: Path, splits: Sequence[str], clusters: int, seed: int = 1, max_frames: int = 1_000_000
) -> None:
    """Write ``out/dict.km.txt`` and ``out/<split>.km``; clusters are fitted on the first split.

    Raises:
        UserError: a manifest or an audio file cannot be used, or there is too little audio.
    """
    chosen = {split: read_manifest(manifests, split, f"--splits {split}") for split in splits}
    features = {
        split: [
            features_of(Path(subset.root) / name) for name in tracked(subset.names, f"MFCCs of {split}", "utterance")
        ]
        for split, subset in chosen.items()
    }
    with working(f"finding {clusters} clusters"):
        model = fit_clusters(features[splits[0]], clusters, seed, max_frames)
    labels = {split: [model.predict(frames) for frames in features[split]] for split in splits}
    counts = np.bincount(np.concatenate(labels[splits[0]]), minlength=clusters)  # 0 for a cluster without frames
    for split in splits:
        _write(out / f"{split}.km", (" ".join(map(str, line)) for line in labels[split]))
    _write(out / "dict.km.txt", (f"{cluster} {count}" for cluster, count in enumerate(counts)))


def _write(path: Path, lines: Iterable[str]) -> None:
    with replacing(path) as beside:
        beside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def main() -> None:
    """Read the command line and label the splits."""
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd.demo.pretraining_labels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("manifests", type=Path, metavar="MANIFEST_DIR", help="folder with <split>.tsv")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (default: MANIFEST_DIR)")
    parser.add_argument("--clusters", type=int, default=50, help="number of labels (default: 50)")
    parser.add_argument(
        "--splits", nargs="+", default=["train", "valid"], help="splits to label (default: train valid)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the k-means (default: 1)")
    parser.add_argument("--max-frames", type=int, default=1_000_000, help="most frames to fit on (default: 1000000)")
    arguments = parser.parse_args()
    if arguments.clusters < 2:
        parser.error("--clusters must be at least 2")
    if not arguments.manifests.is_dir():
        parser.error(f"{arguments.manifests} is not a folder")
    out = arguments.out or arguments.manifests
    if arguments.out:  # now, before minutes are spent
        out.mkdir(parents=True, exist_ok=True)
    label_splits(arguments.manifests, out, arguments.splits, arguments.clusters, arguments.seed, arguments.max_frames)
    print(f"labels of {', '.join(arguments.splits)}, and dict.km.txt: {out}")


if __name__ == "__main__":
    sys.exit(run_command("fairseq_skd.demo.pretraining_labels", main))
