# %% [markdown]
"""Train a first student on your own recordings.

Input: a folder of recordings with transcripts, and a pretrained encoder. Output: one checkpoint
with a teacher and a student, the word error rates of both, and a figure of their spikes.

    python examples/first_student.py /data/corpus /models/hubert_mini.pt /runs/first

The folder has WAV or FLAC files with one channel. The transcript of `NAME.wav` is in `NAME.txt`
beside it. Put the recordings of each speaker into a subfolder: the test set then has speakers that
training has not heard.

`key=value` at the end of the line sets a key of the recipe, for example `common.cpu=true`.
The extras `analysis` and `digits` are needed; `make install` installs them.
`examples/first_student.ipynb` is this script as a notebook.
"""

# %%
import argparse
import json
import random
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import fairseq_skd
from fairseq_skd.alignment.figures import STUDENT, TEACHER, frames_of, shown, stagger
from fairseq_skd.alignment.spikes import find_spikes
from fairseq_skd.cli import quieten_libraries

parser = argparse.ArgumentParser(description="Train a first student on your own recordings.")
parser.add_argument("audio", type=Path, help="folder of .wav and .flac files, each with its .txt")
parser.add_argument("encoder", type=Path, help="pretrained HuBERT, WavLM or wav2vec 2.0")
parser.add_argument("out", type=Path, help="folder to write")
parser.add_argument("--recipe", default="hubert_mini", help="name in config/finetune (default: hubert_mini)")
parser.add_argument("--student-layer", type=int, default=6, help="layers of the student (default: 6)")
parser.add_argument("--updates", type=int, help="length of the training (default: the recipe's)")
parser.add_argument("keys", nargs="*", metavar="key=value", help="further keys of the recipe")
# A notebook has no command line. Write here what you would type.
typed = ["/data/corpus", "/models/hubert_mini.pt", "/runs/first"]
args = parser.parse_intermixed_args(typed if "ipykernel" in sys.modules else None)

if not args.encoder.exists():
    sys.exit(f"the encoder {args.encoder} does not exist: give a pretrained checkpoint")
found = [path for path in args.audio.rglob("*") if path.suffix.lower() in (".wav", ".flac")]
# What an earlier run wrote is no recording, if OUT is inside the folder.
recordings = sorted(path for path in found if args.out.resolve() not in path.resolve().parents)
if len(recordings) < 3:
    sys.exit(f"{args.audio} has {len(recordings)} .wav and .flac files: give a folder with at least 3")
for path in recordings:
    if not path.with_suffix(".txt").is_file():
        sys.exit(f"{path} has no transcript: write its text to {path.with_suffix('.txt').name} beside it")

# %% [markdown]
# ## 1. A table of the corpus
#
# A tenth of the speakers is for test and a tenth for validation. With fewer than three speakers,
# the recordings are divided instead.

# %%
names = [path.relative_to(args.audio) for path in recordings]
speakers = [name.parts[0] if len(name.parts) > 1 else "" for name in names]
groups = speakers if len(set(speakers)) >= 3 else [str(name) for name in names]
order = sorted(set(groups))
random.Random(1).shuffle(order)
tenth = max(1, len(order) // 10)
splits = {group: "test" if n < tenth else "valid" if n < 2 * tenth else "train" for n, group in enumerate(order)}

rows = ["path\tsplit\tspeaker\ttext"]
for path, name, group, speaker in zip(recordings, names, groups, speakers, strict=True):
    # What is not UTF-8 becomes a character that the next step lists, with the name of the file.
    text = path.with_suffix(".txt").read_text(encoding="utf-8-sig", errors="replace")
    rows.append(f"{name}\t{splits[group]}\t{speaker}\t{' '.join(text.split())}")
args.out.mkdir(parents=True, exist_ok=True)
(args.out / "table.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")

# %% [markdown]
# ## 2. Manifests, training, decoding
#
# Three commands do the work. Copy a printed line to run it again with other settings.


# %%
def run(command: str, *words: object) -> None:
    """Print a command of fairseq_skd and run it; if it fails, stop with its exit status."""
    line = ["-m", f"fairseq_skd.{command}", *map(str, words)]
    print(f"\n{shlex.join(['python', *line])}", flush=True)
    if status := subprocess.run([sys.executable, *line]).returncode:
        sys.exit(status)  # the command has printed the reason


manifests, checkpoint = args.out / "manifests", args.out / "training" / "checkpoint_best.pt"
# The labels are the letters A-Z and the apostrophe. --normalize brings other transcripts there.
options = ("--resample", "--normalize", "upper,punctuation,digits")
run("manifest", "table", args.out / "table.tsv", "--audio-root", args.audio, "--out", manifests, *options)

keys = [f"task.data={manifests}", f"model.w2v_path={args.encoder}", f"checkpoint.save_dir={checkpoint.parent}"]
keys += [f"model.student_layers=[{args.student_layer}]"]
keys += [f"optimization.max_update={args.updates}"] if args.updates else []
# If the posteriors stay on the word boundary (␣ in the figure), give model.blank_weight=2.0.
run("train", args.recipe, *keys, *args.keys)

summaries = {}
for name, layer in (("teacher", 0), ("student", args.student_layer)):  # 0 is the full encoder
    results = args.out / f"test-{name}"
    keys = [f"task.data={manifests}", f"common_eval.path={checkpoint}", "dataset.gen_subset=test"]
    keys += [key for key in args.keys if key.startswith("common.cpu=")]
    run("infer", *keys, f"decoding.layer={layer}", f"common_eval.results_path={results}")
    summaries[name] = json.loads((results / "summary.json").read_text(encoding="utf-8"))

print(f"\n{'':8}{'layers':>8}{'parameters':>13}{'WER %':>8}")
for name, found in summaries.items():
    print(f"{name:8}{found['exit_layer']:8}{found['parameters']:13,}{found['wer']:8.2f}")

# %% [markdown]
# ## 3. The spikes of teacher and student
#
# One pass through the encoder gives the posteriors of both exits. Lines mark the teacher's spikes
# in both rows. `python -m fairseq_skd.align` measures the agreement over the whole test set.

# %%
root, first, *_ = (manifests / "test.tsv").read_text(encoding="utf-8").splitlines()
recording = Path(root, first.split("\t")[0])
quieten_libraries()
device = "cpu" if "common.cpu=true" in args.keys else None
rec = fairseq_skd.load(checkpoint, device=device)  # at all exits, the teacher first
out = rec(*rec.batch([recording]))  # out.logits: {exit: (T, B, V)}
seconds = len(out.logits[rec.exits[0]]) * rec.frame_seconds

figure, axes = plt.subplots(2, 1, sharex=True, sharey=True, figsize=(2 + 3 * seconds, 4.5), layout="constrained")
for row, name, layer, colour in zip(axes, ("teacher", "student"), rec.exits, (TEACHER, STUDENT), strict=True):
    posteriors = out.logits[layer][:, 0].softmax(dim=-1).cpu().numpy()  # (T, B, V) -> (T, V)
    times = np.arange(len(posteriors)) * rec.frame_seconds
    row.plot(times, posteriors[:, 0], color="0.75", label="blank")
    row.plot(times, posteriors[:, 1:].max(axis=1), color=colour, label="most probable unit")
    spikes = find_spikes(frames_of(posteriors))
    levels = stagger(times[spikes.peaks].tolist(), room=0.05)  # neighbours closer than 50 ms stand above each other
    for symbol, peak, level in zip(spikes.symbols, spikes.peaks, levels, strict=True):
        row.text(times[peak], 1.05 + 0.17 * level, shown(rec.symbols[symbol]), ha="center", color=colour)
    if name == "teacher":
        for both in axes:
            both.vlines(times[spikes.peaks], 0, 1, color=TEACHER, linewidth=0.5, alpha=0.4)
    row.set(title=f"{name}, {layer} layers", ylabel="posterior", ylim=(0, 1.6), yticks=[0, 0.5, 1])
    row.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
axes[1].set_xlabel("time (s)")
figure.suptitle(f"{recording.name}: {(manifests / 'test.wrd').read_text(encoding='utf-8').splitlines()[0]}")
figure.savefig(args.out / "spikes.png", dpi=150)
print(f"\nspikes: {args.out / 'spikes.png'}")
