"""``python -m tests.goldens.make``: run the cases and write their results to ``expected.json``.

With ``--train`` it first makes a new corpus and new checkpoints, in about three minutes. Then texts
and numbers change.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch

from tests.builders import BUCKETS, write_corpus, write_pretrained
from tests.goldens import cases

WORDS = ("GO", "ON", "A", "IT", "IS", "NO", "YES", "SO", "TEN", "EAT")
ENCODER = {
    "encoder_embed_dim": 64,
    "encoder_ffn_embed_dim": 128,
    "conv_feature_layers": "[(32,10,5)] + [(32,3,2)] * 4 + [(32,2,2)] * 2",
}
_SECONDS_PER_LETTER = 0.16
_NOISE = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.goldens.make", description=__doc__)
    parser.add_argument("--train", action="store_true", help="make a new corpus and new checkpoints")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.train:
            train(Path(folder))
        found = cases.everything(Path(folder) / "cases")
    (cases.HERE / "expected.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(f"{len(found)} cases: {cases.HERE / 'expected.json'}")


def train(folder: Path) -> None:
    """Train two checkpoints without optimizer state, and keep the subset that they decode."""
    data = corpus(folder)
    _keep_test(data)
    for kind in cases.KINDS:
        keys = [f"task.data={data}", f"model.w2v_path={pretrained(kind)}", "common.cpu=true"]
        keys += [f"model.student_layers=[{cases.STUDENT}]", "optimization.max_update=600", "optimization.lr=[3e-3]"]
        keys += ["dataset.max_tokens=200000", "model.mask_length=2", "model.feature_grad_mult=1.0"]
        keys += ["model.mask_channel_prob=0", "dataset.validate_interval=100", "model.mask_prob=0.05"]
        keys += ["checkpoint.no_save_optimizer_state=true", "checkpoint.save_interval=100"]
        done = cases.train(folder / kind, keys)
        assert done.returncode == 0, done.stdout[-3000:]
        state = torch.load(folder / kind / "checkpoint_last.pt", weights_only=False)
        state["last_optimizer_state"] = None
        torch.save(state, cases.HERE / f"{kind}.pt")


def pretrained(kind: str) -> Path:
    """Write an encoder with random weights."""
    path = write_pretrained(
        cases.HERE / f"{kind}.pretrained.pt", kind, **ENCODER, **(BUCKETS if kind == "wavlm" else {})
    )
    state = torch.load(path, weights_only=False)
    for name, tensor in state["model"].items():  # random attention learns nothing in a few hundred updates
        if "self_attn" in name:
            tensor.mul_(0.1)
    torch.save(state, path)
    return path


def corpus(folder: Path) -> Path:
    rng = np.random.default_rng(5)
    splits = {
        name: [_sentence(rng) for _ in range(count)] for name, count in (("train", 60), ("valid", 6), ("test", 7))
    }
    return write_corpus(folder / "data", splits)


def _sentence(rng: np.random.Generator) -> tuple[str, float]:
    text = " ".join(rng.choice(WORDS, size=rng.integers(1, 5)))
    return text, round(0.2 + _SECONDS_PER_LETTER * len(text), 2)


def _keep_test(data: Path) -> None:
    here = cases.HERE / "corpus"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    rng = np.random.default_rng(6)
    _, *lines = (data / "test.tsv").read_text().splitlines()
    for line in lines:
        name = line.split("\t")[0]
        wave, rate = soundfile.read(data / "audio" / name)
        wave += _NOISE * rng.standard_normal(len(wave))  # with some errors, a change of the code shows
        soundfile.write(here / Path(name).with_suffix(".flac"), wave, rate)
    (here / "test.tsv").write_text("\n".join(lines).replace(".wav", ".flac") + "\n")
    shutil.copy(data / "test.ltr", here)
    spellings = [f"{word}\t{' '.join(word)} |\n" for word in WORDS]
    (here / "lexicon.txt").write_text("".join(spellings))
    share = np.log10(1 / (len(WORDS) + 1))
    entries = "".join(f"{share - 0.05 * place:.4f}\t{word}\t0\n" for place, word in enumerate(WORDS))
    head = f"\\data\\\nngram 1={len(WORDS) + 3}\nngram 2=1\n\n\\1-grams:\n-2\t<unk>\n-99\t<s>\t0\n{share:.4f}\t</s>\n"
    (here / "lm.arpa").write_text(f"{head}{entries}\n\\2-grams:\n-0.1\tGO ON\n\n\\end\\\n")


if __name__ == "__main__":
    main()
