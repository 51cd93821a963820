"""``make fuzz``: read thousands of damaged and hostile checkpoints, each in a forked process.

A read is good if the checkpoint works, or is refused with one sentence that names the file and what
is wrong. It is bad if it ends with any other exception, a signal or a time-out, executes a command,
or leaks a value of the environment.
"""

import argparse
import collections
import json
import logging
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import checkpoint_utils
from fairseq.logging import metrics
from omegaconf import OmegaConf, open_dict
from safetensors.torch import load_file, save_file

import fairseq_skd  # noqa: F401  (registers, and replaces fairseq's reader)
from fairseq_skd.encoders import checkpoint
from fairseq_skd.errors import UserError
from fairseq_skd.models.skd_ctc import SkdCtc
from fairseq_skd.models.trained import open_trained
from fairseq_skd.recognizer import Recognizer
from fairseq_skd.training.resuming import other_settings, settings_of
from fairseq_skd.training.starting import read_state
from tests.builders import CtcTask, model_config, write_pretrained
from tests.decoding.checkpoints import write_fine_tuned
from tests.encoders.peers import write_folder
from tests.fuzz.mutations import CANARY, damage, mutate, rewrite_pickle, write_torch

CRITERION = "SkdCtcCriterion"
_VALUE = "a value of a wrong type, choice or range"
_REASONS = {
    "allow-list": "a name that is not on the allow-list",
    "numpy scalar": "a numpy type that is not a plain scalar",
    "exceeds or repeats|tensor of an unknown form": "a tensor that exceeds its storage",
    "is compressed|overlap|two members": "compressed, overlapping or doubled members",
    "its storage|its list of storages": "storages that do not match the pickle",
    "cannot be read": "truncated, or damaged bytes (checksum)",
    "not a PyTorch file, or": "steps of a pickle that no checkpoint has",
    "unknown form|integer of|copies its|it holds a key": "a form that no checkpoint has",
    "its dictionary": "a damaged dictionary",
    "its configuration has": "a configuration too large or too deep",
    "neither 'cfg' nor|no 'model' dict|no weights|not a dict|not JSON|not a JSON": "no checkpoint, or a missing part",
    "name of a tensor": "weights that are not named tensors",
    "cannot be resolved": "an interpolation in a used key",
    "is above|number above": "a declared size above its limit",
    "describes an encoder": "a declared encoder larger than its file",
    "holds NaN": "weights with NaN or Inf",
    r"lacks \d|has shape|do not fit|does not fit|no CTC head|CTC head": "weights that do not fit",
    "is damaged: its": "a training state of a wrong type or range",
    "dictionary|weights only|was trained with": "another dictionary, criterion or task",
    "what model it is|is a .* model|of model|holds model|does not say its|fine-tuned|type ": "another model, or no key",
    "positive integer|true nor false|is unknown|cannot be used|out of range|multiple|sum of lists|no meaning": _VALUE,
    "does not number|says do_normalize": _VALUE,
    "has to name|lists of equal|students|buckets|is not|empty|support|even|must|set up|projection": _VALUE,
}
_SECONDS = 20
_MEMORY = 2 << 30  # bytes above the size of this process
KINDS = ("structure",) * 8 + ("pickle", "bytes")


@dataclass(frozen=True)
class Outcome:
    """Result of one read.

    Attributes:
        target: the use of the checkpoint.
        stage: the last stage that was reached: reader, behind the reader, or works.
        reason: the kind of refusal, or what went wrong.
        bad: whether the read was bad.
    """

    target: str
    stage: str
    reason: str
    bad: bool = False


@dataclass(frozen=True)
class Seeds:
    """The checkpoints to mutate, and the pretrained checkpoint of a training."""

    new: Path
    old: Path
    folder: Path
    s3prl: Path
    microsoft: Path
    ctc: Path
    pretrained: Path

    @classmethod
    def write(cls, folder: Path) -> "Seeds":
        """Write the checkpoints, as small as possible."""
        shape = {"encoder_layers": 3}
        new = write_fine_tuned(folder / "new.pt", **shape)
        state = torch.load(new, weights_only=True)
        state["optimizer_history"] = [
            {
                "criterion_name": CRITERION,
                "optimizer_name": "FairseqAdam",
                "lr_scheduler_state": {"best": 1.0},
                "num_updates": 7,
            }
        ]
        meter = {"val": 1.5, "sum": 3.0, "count": 2, "round": 3}
        state["extra_state"] = {
            "epoch": 3,
            "train_iterator": {"epoch": 3, "version": 2, "iterations_in_epoch": 4, "shuffle": True, "len": 9},
            "metrics": {"default": [(10, "loss", "AverageMeter", meter)], "train": [(0, "n", "SumMeter", {"sum": 2})]},
            "previous_training_time": 2.5,
            "best": 12.5,
            "val_loss": 12.5,
        }
        states = {index: {"step": 7, "exp_avg": torch.zeros(2)} for index in range(3)}
        groups = [{"lr": 1e-3, "betas": (0.9, 0.98), "params": [0, 1, 2]}]
        state["last_optimizer_state"] = {"state": states, "param_groups": groups}
        state["cfg"]["criterion"] = {"_name": "skd_ctc", "post_process": "letter"}
        torch.save(state, new)
        write_folder(folder / "hf", "wavlm", num_hidden_layers=2)
        pretrained = write_pretrained(folder / "pretrained.pt", **shape)
        state = torch.load(pretrained, weights_only=True)
        s3prl = {"model_cfg": state["cfg"]["model"], "task_cfg": state["cfg"]["task"], "model_weight": state["model"]}
        torch.save({**s3prl, "dictionaries_symbols": [["0"]]}, folder / "s3prl.pt")
        ctc, symbols = folder / "ctc", ["<pad>", "<s>", "</s>", "<unk>", *"|ETAOINSHR", "[X]"]
        write_folder(ctc, "hubert", "ForCTC", num_hidden_layers=3, vocab_size=len(symbols) + 1, pad_token_id=0)
        tokens = {"pad_token": {"content": "<pad>"}, "unk_token": "<unk>", "word_delimiter_token": "|"}
        for name, content in (
            ("vocab.json", {symbol: number for number, symbol in enumerate(symbols)}),
            ("added_tokens.json", {"[Y]": len(symbols)}),
            ("tokenizer_config.json", {**tokens, "do_lower_case": False}),
            ("special_tokens_map.json", tokens),
            ("preprocessor_config.json", {"do_normalize": False, "sampling_rate": 16000}),
            ("processor_config.json", {"feature_extractor": {"do_normalize": False}}),
        ):
            (ctc / name).write_text(json.dumps(content))
        return cls(
            new,
            write_pretrained(folder / "old.pt", "wav2vec2", "args", **shape),
            folder / "hf",
            folder / "s3prl.pt",
            write_pretrained(folder / "microsoft.pt", "wavlm", **shape),
            ctc,
            pretrained,
        )


def _decode(path: Path, seeds: Seeds) -> Any:
    trained = open_trained(path)
    _reached("behind the reader")
    recognizer = Recognizer(trained, ([0, *trained.students][-1],), "cpu")
    if trained.dictionary is not None:
        recognizer.transcribe([np.zeros(4000, np.float32)])
    cfg = recognizer.model.cfg
    return [trained.config, {key: cfg[key] for key in cfg if not OmegaConf.is_missing(cfg, key)}]


def _train(path: Path, seeds: Seeds, criterion: str | None) -> Any:
    task = CtcTask()
    cfg = model_config(path if path.is_dir() else seeds.pretrained, student_layers=[2])
    if path.is_dir():  # the encoder is in it
        with open_dict(cfg._get_parent()) as root:
            root.checkpoint = {"finetune_from_model": str(path)}
        cfg = root.model
    model = SkdCtc.build_model(cfg, task)
    _reached("behind the reader" if path.is_dir() else "reader")
    state = read_state(path, model, task.target_dictionary, criterion)
    model.load_state_dict(state["model"], strict=True)
    metrics.load_state_dict(state["extra_state"].get("metrics", {}))
    return [{key: part for key, part in state.items() if key != "model"}]


def _resume(path: Path, seeds: Seeds) -> Any:
    saved = settings_of(path)
    _reached("behind the reader")
    now = OmegaConf.create({"model": {"dropout": 0.1}, "task": {"data": "."}, "criterion": {"_name": "ctc"}})
    return [str(other_settings(now, saved)), *_train(path, seeds, CRITERION)]


def _start(path: Path, seeds: Seeds) -> Any:
    return _train(path, seeds, None)


def _fairseq(path: Path, seeds: Seeds) -> Any:
    cfg = checkpoint.load_checkpoint(path)["cfg"]
    if cfg is None or cfg["model"].get("_name") != "skd_ctc":
        return "another model is left to fairseq"
    state = checkpoint_utils.load_checkpoint_to_cpu(str(path), {"data": "."})
    return [OmegaConf.to_container(state["cfg"], resolve=True), state["task_state"], state["extra_state"]]


def _pretrain(path: Path, seeds: Seeds) -> Any:
    encoder = checkpoint.load_pretrained(path)
    _reached("behind the reader")
    task = CtcTask()
    task.cfg.sample_rate = encoder.sample_rate
    cfg = model_config(path, normalize=encoder.normalize, student_layers=[1] if encoder.depth > 1 else [])
    SkdCtc.build_model(cfg, task)
    return [OmegaConf.to_container(cfg._get_parent(), resolve=True)]


TARGETS: dict[str, list[Callable[[Path, Seeds], Any]]] = {
    "new": [_decode, _resume, _start, _fairseq],
    "old": [_pretrain],
    "folder": [_pretrain],
    "s3prl": [_pretrain],
    "microsoft": [_pretrain],
    "ctc": [_decode, _start],
}


def _kind(number: int, seed: int) -> tuple[random.Random, str]:
    """Return the generator of a mutation, and what it changes."""
    rng = random.Random(f"{seed} {number}")
    return rng, rng.choice(KINDS)


def _prepare(name: str, seeds: Seeds, folder: Path, rng: random.Random | None, kind: str) -> Path:
    """Copy a seed to ``folder``, mutated unless ``rng`` is None."""
    source: Path = getattr(seeds, name)
    path = folder / source.name
    if source.is_dir():
        shutil.copytree(source, path)
    else:
        shutil.copy(source, path)
    if rng is None:
        return path
    if source.is_dir():
        _mutate_folder(path, kind, rng)
    elif kind == "structure":
        state, _ = mutate(torch.load(source, weights_only=True), rng)
        write_torch(state, path, rng)
    else:
        path.write_bytes((rewrite_pickle if kind == "pickle" else damage)(source.read_bytes(), rng))
    return path


def _mutate_folder(path: Path, kind: str, rng: random.Random) -> None:
    weights = path / "model.safetensors"
    if kind == "bytes":
        file = rng.choice([weights, *sorted(path.glob("*.json"))])
        file.write_bytes(damage(file.read_bytes(), rng))
        return
    tensors = load_file(weights)
    if kind == "pickle" or rng.random() < 0.3:  # weights in torch's format
        weights.unlink()
        state, _ = mutate({"model": tensors}, rng)
        write_torch(state.get("model"), path / "pytorch_model.bin", rng)
    elif rng.random() < 0.3:
        state, _ = mutate({"model": tensors}, rng)
        model = state.get("model") if isinstance(state.get("model"), dict) else {}
        held = {str(name): part.contiguous() for name, part in model.items() if isinstance(part, torch.Tensor)}
        save_file(held, weights)
    else:
        file = rng.choice([path / "config.json", *sorted(path.glob("*.json"))])
        config, _ = mutate({"cfg": json.loads(file.read_text())}, rng, json_only=True)
        file.write_text(json.dumps(config.get("cfg")))


_stage = ["reader"]


def _reached(stage: str) -> None:
    _stage[0] = stage


def _child(name: str, number: int, seed: int, seeds: Seeds, folder: Path) -> Iterator[Outcome]:
    """Mutate a checkpoint and use it for one target; the control is used for all targets."""
    rng, kind = (None, "") if number < 0 else _kind(number, seed)
    path = _prepare(name, seeds, folder, rng, kind)
    os.chdir(folder)
    log: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: log.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().handlers = [handler]
    asked: list[str] = []
    get = os._Environ.__getitem__  # type: ignore[attr-defined]
    os._Environ.__getitem__ = (  # type: ignore[attr-defined]
        lambda self, key: (asked.append(key) if key == CANARY else None) or get(self, key)
    )
    secret = get(os.environ, CANARY)
    targets = TARGETS[name]
    for target in targets if number < 0 else [targets[number // len(TARGETS) % len(targets)]]:
        label = target.__name__[1:]
        _reached("reader")
        try:
            shown = repr(target(path, seeds))
            outcome = Outcome(label, "works", "works")
        except UserError as error:
            shown = str(error)
            outcome = Outcome(label, _stage[0], _reason(shown), "\n" in shown or path.name not in shown)
        except BaseException as error:
            shown = str(error)
            outcome = Outcome(label, _stage[0], f"{type(error).__name__}: {shown.splitlines()[:1]}", True)
        if asked or secret in shown or any(secret in line for line in log):
            outcome = Outcome(label, _stage[0], "the environment was read", True)
        if (folder / CANARY).exists():
            outcome = Outcome(label, _stage[0], "a command was executed", True)
        yield outcome


def _reason(sentence: str) -> str:
    """Classify the message of a refusal."""
    return next((kind for words, kind in _REASONS.items() if re.search(words, sentence)), f"other: {sentence[:80]}")


def read_forked(name: str, number: int, seed: int, seeds: Seeds, folder: Path) -> list[Outcome]:
    """Run :func:`_child` in a process with limited time and memory; number -1 is the control."""
    read, write = os.pipe()
    folder.mkdir()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, size + _MEMORY))
            warnings.simplefilter("ignore")
            for outcome in _child(name, number, seed, seeds, folder):
                os.write(write, (json.dumps(vars(outcome)) + "\n").encode())
            os._exit(0)
        except BaseException as error:
            os.write(
                write,
                (
                    json.dumps(
                        {"target": name, "stage": "?", "reason": f"the fuzz failed: {error!r}"[:300], "bad": True}
                    )
                    + "\n"
                ).encode(),
            )
            os._exit(1)
    os.close(write)
    content, end = b"", time.monotonic() + 2 * _SECONDS
    while ready := select.select([read], [], [], max(0.0, end - time.monotonic()))[0]:
        part = os.read(ready[0], 1 << 16)
        if not part:
            break
        content += part
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(read)
    _, status = os.waitpid(pid, 0)
    shutil.rmtree(folder)
    outcomes = [Outcome(**json.loads(line)) for line in content.splitlines()]
    if os.WIFSIGNALED(status):
        outcomes.append(Outcome(name, "?", f"ended by signal {os.WTERMSIG(status)}", True))
    return outcomes


def fuzz(mutations: int, seed: int, folder: Path, tell: Callable[[str], None] = print) -> tuple[int, int, int]:
    """Read the controls and the mutations, and print a summary.

    Returns:
        number of reads, of reads that passed the reader, and of bad reads (controls included).
    """
    os.environ[CANARY] = "the-secret-of-the-environment"
    seeds = Seeds.write(folder)
    bad: list[str] = []
    for name in TARGETS:
        for outcome in read_forked(name, -1, seed, seeds, folder / "control"):
            if outcome.stage != "works":
                bad.append(f"control {name}: {outcome}")
                tell(f"BAD {bad[-1]}")
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    names = list(TARGETS)
    for number in range(mutations):
        name = names[number % len(names)]
        for outcome in read_forked(name, number, seed, seeds, folder / f"{number}"):
            counts[outcome.stage, outcome.reason] += 1
            if outcome.bad:
                bad.append(f"{name} {number}: {outcome}")
                tell(f"BAD {bad[-1]}")
    total = sum(counts.values())
    past = sum(count for (stage, _), count in counts.items() if stage != "reader")
    structural = sum(_kind(number, seed)[1] == "structure" for number in range(mutations))
    tell(f"{structural:,} of the mutations change the structure, saved with valid checksums")
    tell(f"{mutations:,} mutations, seed {seed}: {total:,} reads, {past:,} passed the reader, {len(bad)} were bad")
    for (stage, reason), count in counts.most_common():
        tell(f"{count:6d}  {stage:18}  {reason}")
    return total, past, len(bad)


def main() -> None:
    """Run the whole fuzz."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=2100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger().handlers = [logging.NullHandler()]
    with tempfile.TemporaryDirectory() as folder:
        total, past, bad = fuzz(arguments.mutations, arguments.seed, Path(folder))
    sys.exit(1 if bad or past < total / 5 else 0)


if __name__ == "__main__":
    main()
