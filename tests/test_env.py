"""What a bug report shows, of this environment and of broken ones."""

import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import soundfile
import torch

import fairseq_skd
from fairseq_skd import env

REPOSITORY = Path(fairseq_skd.__file__).resolve().parents[1]
CHECKOUT = (REPOSITORY / ".git").exists()  # not in what a source distribution unpacks to


def shown(*, path: Path | None = None, **variables: str) -> dict[str, str]:
    """The lines of the command in a process; modules in ``path`` stand before the real ones."""
    environment = {
        **os.environ,
        **variables,
        "PYTHONPATH": os.pathsep.join(map(str, [*([path] if path else []), REPOSITORY])),
    }
    command = [sys.executable, "-m", "fairseq_skd.env"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", check=True)
    assert done.stderr == ""
    return {line[:24].strip(): line[25:] for line in done.stdout.splitlines()}


@pytest.mark.slow
def test_this_environment() -> None:
    found = shown(OMP_NUM_THREADS="3", MY_SECRET="hush")
    assert found["fairseq_skd"].startswith(f"{fairseq_skd.__version__}{', commit ' if CHECKOUT else ''}")
    assert found["user dir"] == str(REPOSITORY / "fairseq_skd").replace(str(Path.home()), "~")
    assert found["torch"] == torch.__version__
    assert found["numpy"] == numpy.__version__
    assert found["libsndfile"] == soundfile.__libsndfile_version__
    assert found["fairseq"].split()[0] in env.FAIRSEQS
    assert found["GPUs" if not torch.cuda.is_available() else "GPU 0"]
    assert "OMP_NUM_THREADS=3" in found["variables"]
    assert "hush" not in str(found)
    assert len(found) <= 30


@pytest.mark.slow
def test_a_broken_environment(tmp_path: Path) -> None:
    """fairseq raises, torch ends the process, soundfile is damaged; git is not there."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "fairseq.py").write_text("raise ImportError('/home/me/lib/x.so: undefined symbol')")
    (broken / "torch.py").write_text("import os; os.kill(os.getpid(), 11)")
    (broken / "soundfile.py").write_text("raise OSError('sndfile library not found')")
    found = shown(path=broken, HOME="/home/me", PATH="/nowhere")
    assert found["fairseq"].endswith(", cannot be imported: ImportError: ~/lib/x.so: undefined symbol")
    assert found["torch"] == f"{env._version('torch')}, cannot be imported: ended with status -11"
    assert found["soundfile"].endswith(", cannot be imported: OSError: sndfile library not found")
    assert found["fairseq_skd"].endswith(", a checkout of unknown commit" if CHECKOUT else fairseq_skd.__version__)


def test_distributions_of_fairseq(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"ve-fairseq": "0.12.3", "fairseq": "0.12.2"}
    monkeypatch.setattr(env, "_version", lambda name: installed.get(name, env.MISSING))
    works = {"version": "0.12.3"}
    both = "ve-fairseq 0.12.3 and fairseq 0.12.2 (keep one: all import as fairseq)"
    assert list(env.fairseq_lines(works)) == [("fairseq", both)]
    installed.clear()
    assert list(env.fairseq_lines(works)) == [("fairseq", "0.12.3, not installed by pip")]
    absent = "ModuleNotFoundError: No module named 'fairseq'"
    assert list(env.fairseq_lines(absent)) == [("fairseq", "not installed")]
    installed["fairseq"] = "0.12.2"
    assert list(env.fairseq_lines(absent)) == [("fairseq", f"fairseq 0.12.2, cannot be imported: {absent}")]


def test_a_package_without_a_checkout(tmp_path: Path) -> None:
    assert env._commit(tmp_path) == ""


@pytest.mark.slow
def test_a_probe_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "_PATIENCE", 0.2)
    assert env._finish(env._start("import time; time.sleep(60)")) == "no answer within 0.2 s"
