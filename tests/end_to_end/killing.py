"""Train in forked children of one process, and kill them while they save a checkpoint.

``python -m tests.end_to_end.killing FOLDER OVERRIDES...`` prints three numbers: killed runs,
checked files, resumed runs.
"""

import logging
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fairseq_cli.hydra_train
import torch
from fairseq import checkpoint_utils

import fairseq_skd  # noqa: F401  (the user dir, imported before the children are forked)
from tests.end_to_end.training import REPOSITORY, assert_equal, parameters

KILLED_AT = 6  # update, in the second epoch; the last save was at 4, the training ends at 8
STEPS = ("open", "tempfile.mkstemp", "shutil.copyfile", "os.chmod", "os.rename", "os.remove")
SHARES = [share / 14 for share in range(14)]  # of a file that is written before the kill


def child(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked child; returns its exit status, negative for a signal."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def train(folder: Path, overrides: Sequence[str]) -> None:
    """Train in this process as fairseq-hydra-train does."""
    config = REPOSITORY / "config" / "finetune"
    sys.argv = [
        *("fairseq-hydra-train", "--config-dir", str(config), "--config-name", "hubert_mini"),
        *(f"common.user_dir={REPOSITORY / 'fairseq_skd'}", f"checkpoint.save_dir={folder}", f"hydra.run.dir={folder}"),
        *overrides,
    ]
    fairseq_cli.hydra_train.cli_main()


def watch(folder: Path, seen: Callable[[str, Any], None]) -> None:
    """Call ``seen`` before each step with which this process touches a file below ``folder``."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in STEPS and str(args[0]).startswith(f"{folder}/"):
            seen(event, args)

    sys.addaudithook(hook)


def save_and_die(save: Callable[[], None], folder: Path, step: int, most_bytes: int | None) -> None:
    """Save, but die at the given step.

    Without ``most_bytes`` die before it, else as soon as a file grows beyond so many bytes.
    """
    steps = 0

    def seen(event: str, args: Any) -> None:
        nonlocal steps
        if steps == step and most_bytes is None:
            os.kill(os.getpid(), signal.SIGKILL)
        if steps == step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        steps += 1

    logging.disable(logging.CRITICAL)  # the log is a file too
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    watch(folder, seen)
    save()


def kill_savers(save: Callable[[Path], None], old: Path, base: Path) -> None:
    """Save into copies of ``old``: once completely, then killed at every step and in every file."""

    def points() -> None:
        whole = base / "saved"
        shutil.copytree(old, whole)
        steps: list[tuple[str, Any]] = []
        watch(whole, lambda *step: steps.append(step))
        save(whole)
        size = (whole / "checkpoint_last.pt").stat().st_size
        chosen: list[tuple[int, int | None]] = [(step, None) for step in range(len(steps))]
        written = [i for i, (event, args) in enumerate(steps) if event == "open" and "w" in str(args[1])]
        chosen += [(step, int(share * size)) for step in written for share in SHARES]
        for number, (step, most_bytes) in enumerate(chosen):
            folder = base / f"killed{number:02}"
            shutil.copytree(old, folder)
            status = child(lambda: save_and_die(lambda: save(folder), folder, step, most_bytes))  # noqa: B023
            assert status == -(signal.SIGKILL if most_bytes is None else signal.SIGXFSZ), (number, step, status)

    assert child(points) == 0


def check(base: Path, old: Path) -> tuple[int, int]:
    """Check that every checkpoint in every folder is complete, and either old or new."""
    new = {path.name: torch.load(path, weights_only=True) for path in (base / "saved").glob("*.pt")}
    assert set(new) == {"checkpoint_best.pt", "checkpoint_last.pt", "checkpoint_2_6.pt", "checkpoint_1_2.pt"}
    folders = sorted(base.glob("killed*"))
    files = [path for folder in folders for path in sorted(folder.glob("*.pt"))]
    for path in files:
        before = old / path.name
        if before.is_file() and before.read_bytes() == path.read_bytes():
            continue
        state = torch.load(path, weights_only=True)
        assert state["optimizer_history"][-1]["num_updates"] == KILLED_AT, path
        assert_equal(state["model"], new[path.name]["model"])
    return len(folders), len(files)


def main(base: Path, overrides: Sequence[str]) -> None:
    """Run one training that is not killed; killed copies branch off, and three of them resume."""
    run, old = base / "run", base / "old"
    save = checkpoint_utils.save_checkpoint

    def branching(cfg: Any, trainer: Any, epoch_itr: Any, val_loss: Any) -> Any:
        def save_into(folder: Path) -> None:
            cfg.save_dir = str(folder)
            save(cfg, trainer, epoch_itr, val_loss)

        if trainer.get_num_updates() == KILLED_AT:
            shutil.copytree(run, old, ignore=shutil.ignore_patterns("*.log", ".*"))
            kill_savers(save_into, old, base)
        return save(cfg, trainer, epoch_itr, val_loss)

    def uninterrupted() -> None:
        checkpoint_utils.save_checkpoint = branching
        train(run, overrides)

    assert child(uninterrupted) == 0
    killed, files = check(base, old)
    resumed = [sorted(base.glob("killed*"))[i] for i in (1, killed // 2, killed - 1)]
    wanted = parameters(run / "checkpoint_last.pt")
    for folder in resumed:
        assert child(lambda: train(folder, overrides)) == 0  # noqa: B023
        assert_equal(parameters(folder / "checkpoint_last.pt"), wanted)
        assert not list(folder.glob(".*part")), "half-written files of the kill remain"
    print(killed, files, len(resumed))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
