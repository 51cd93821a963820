"""Frame labels for HuBERT pretraining: k-means over MFCCs, in the files that fairseq's ``hubert_pretraining`` reads.

For each ``<split>.tsv`` of a manifest folder it writes ``<split>.km``: a line for each utterance, a cluster number for
every 10 ms (``task.label_rate=100``); and ``dict.km.txt``, every cluster with its count. The clusters are found on the
first split named.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
from sklearn.cluster import MiniBatchKMeans
from tqdm import tqdm

from fairseq_skd.corpora.subset import read_manifest
from fairseq_skd.demo.folders import make_folder
from fairseq_skd.demo.mfcc import Features, mfcc_with_deltas
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.files import replacing

Labels = npt.NDArray[np.int64]


def audio_files(manifest: Path) -> list[Path]:
    """The audio files of fairseq's ``<split>.tsv``, in its order.

    Raises:
        UserError: if the manifest is missing, names no utterance, or has a line of another form.
    """
    if not manifest.is_file():
        raise UserError(f"{manifest} does not exist: write it with python -m fairseq_skd.manifest")
    chosen = read_manifest(manifest.parent, manifest.stem)
    return [Path(chosen.root) / name for name in chosen.names]


def features_of(files: list[Path], description: str) -> list[Features]:
    """MFCCs with deltas of each file: (T, 39) arrays.

    Raises:
        UserError: for a file that cannot be read, has several channels, or is shorter than one frame.
    """
    return [_features_of_file(file) for file in tqdm(files, desc=description, unit="utt")]


def _features_of_file(file: Path) -> Features:
    try:
        waveform, sample_rate = soundfile.read(file, dtype="float32")
    except (OSError, soundfile.SoundFileError) as error:
        raise UserError(f"{file} cannot be read as audio: {error}") from None
    if waveform.ndim != 1:
        raise UserError(f"{file} has {waveform.shape[1]} channels: mix it down to one")
    features = mfcc_with_deltas(waveform, sample_rate)
    if len(features) == 0:
        raise UserError(f"{file} is shorter than one frame of 25 ms: leave it out of the manifest")
    return features


def fit_clusters(features: list[Features], clusters: int, seed: int, max_frames: int) -> MiniBatchKMeans:
    """K-means over the frames of ``features``, or over ``max_frames`` of them drawn at random.

    Raises:
        UserError: if there are fewer frames than clusters.
    """
    frames = np.concatenate(features)
    if len(frames) < clusters:
        raise UserError(f"{clusters} clusters need as many frames, the audio has {len(frames)}: lower --clusters")
    if len(frames) > max_frames:
        chosen = np.random.default_rng(seed).choice(len(frames), max_frames, replace=False)
        frames = frames[np.sort(chosen)]
    model = MiniBatchKMeans(
        clusters, batch_size=10_000, max_iter=100, n_init=5, reassignment_ratio=0.0, random_state=seed
    )
    return model.fit(frames)


def write_labels(labels: list[Labels], path: Path) -> None:
    """Write one line an utterance: its cluster numbers, separated by spaces."""
    with replacing(path) as beside:
        beside.write_text("".join(" ".join(map(str, line)) + "\n" for line in labels), encoding="utf-8")


def write_dictionary(counts: npt.NDArray[np.int64], path: Path) -> None:
    """Write fairseq's dictionary: a line for each cluster (one that no frame belongs to as well) and its count."""
    with replacing(path) as beside:
        beside.write_text("".join(f"{cluster} {count}\n" for cluster, count in enumerate(counts)), encoding="utf-8")


def label_splits(
    manifests: Path, out: Path, splits: Sequence[str], clusters: int, seed: int = 1, max_frames: int = 1_000_000
) -> None:
    """Write ``out/dict.km.txt`` and ``out/<split>.km`` for each of ``splits``; the clusters come from the first.

    Raises:
        UserError: a manifest or an audio file that cannot be used, or too little audio for the clusters.
    """
    files = {split: audio_files(manifests / f"{split}.tsv") for split in splits}
    features = {split: features_of(files[split], f"MFCCs of {split}") for split in splits}
    model = fit_clusters(features[splits[0]], clusters, seed, max_frames)
    labels = {split: [model.predict(frames).astype(np.int64) for frames in features[split]] for split in splits}
    for split in splits:
        write_labels(labels[split], out / f"{split}.km")
    write_dictionary(np.bincount(np.concatenate(labels[splits[0]]), minlength=clusters), out / "dict.km.txt")


def main() -> None:
    """Read the command line and label the splits."""
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd.demo.labels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("manifests", type=Path, metavar="MANIFEST_DIR", help="folder of <split>.tsv")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: MANIFEST_DIR)")
    parser.add_argument("--clusters", type=int, default=50, help="number of labels (default: 50)")
    parser.add_argument("--splits", nargs="+", default=["train", "valid"], help="default: train valid")
    parser.add_argument("--seed", type=int, default=1, help="of the k-means (default: 1)")
    parser.add_argument("--max-frames", type=int, default=1_000_000, help="frames to fit on (default: 1000000)")
    arguments = parser.parse_args()
    if arguments.clusters < 2:
        parser.error("--clusters must be at least 2")
    out = make_folder(arguments.out) if arguments.out else arguments.manifests
    label_splits(arguments.manifests, out, arguments.splits, arguments.clusters, arguments.seed, arguments.max_frames)
    print(f"labels of {', '.join(arguments.splits)} and dict.km.txt: {out}")


if __name__ == "__main__":
    sys.exit(run_command("fairseq_skd.demo.labels", main))
