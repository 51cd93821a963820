"""``python -m fairseq_skd.env``: print versions, GPUs and settings for a bug report.

A bug report often comes from a broken environment. The command therefore imports fairseq, torch
and soundfile in separate processes: a crash ends only that process.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import fairseq_skd

_DESCRIPTION = """\
Print what a bug report needs: the versions of this package, fairseq, Python, torch and the other libraries, the GPUs,
the path of the user dir, and environment variables that change a training. A library that is installed but broken
is shown with its error, whose text may hold another path. The path of your home folder is written as ~.
"""
_EXAMPLE = """\
example:
  python -m fairseq_skd.env
"""
_PATIENCE = 120  # seconds; a first import from a network file system is slow
MISSING = "not installed"
FAIRSEQS = ("ve-fairseq", "fairseq-fixed", "fairseq")  # all import as fairseq
REQUIRED = (
    *("hydra-core", "omegaconf", "numpy", "soxr", "sentencepiece", "safetensors", "editdistance", "tabulate"),
    *("tensorboardX", "tqdm"),
)
OPTIONAL = (
    *("flashlight-text", "transformers", "scipy", "matplotlib", "rapidfuzz", "jinja2", "num2words"),
    *("espeakng-loader", "kaldi-native-fbank", "scikit-learn", "hydra-submitit-launcher"),
)
VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"),
    *("HYDRA_FULL_ERROR", "MASTER_ADDR", "WORLD_SIZE", "SLURM_NNODES"),
)
# The last line that each prints is a JSON object: name -> value.
PROBES = {
    "torch": """
import json, torch
from torch.utils import collect_env
found = {"torch": torch.__version__, "CUDA": torch.version.cuda or torch.version.hip or "none (CPU build)"}
if torch.cuda.is_available():
    found["driver"] = collect_env.get_nvidia_driver_version(collect_env.run)
    found["cuDNN"] = torch.backends.cudnn.version()
    for number in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(number)
        found[f"GPU {number}"] = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
else:
    found["GPUs"] = "none"
print(json.dumps(found))
""",
    "fairseq": """
import json, fairseq, fairseq_cli.hydra_train
print(json.dumps({"version": fairseq.__version__}))
""",
    "soundfile": """
import json, soundfile
found = {"soundfile": soundfile.__version__, "libsndfile": soundfile.__libsndfile_version__}
print(json.dumps(found))
""",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line per item."""
    argparse.ArgumentParser(
        prog="python -m fairseq_skd.env",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(arguments)
    for name, value in lines():
        print(f"{name:24} {_without_home(value)}", flush=True)


def lines() -> Iterator[tuple[str, str]]:
    """Collect the report.

    Yields:
        name and value of each line.
    """
    started = {name: _start(code) for name, code in PROBES.items()}
    user_dir = Path(fairseq_skd.__file__).resolve().parent
    yield "fairseq_skd", f"{fairseq_skd.__version__}{_commit(user_dir.parent)}"
    yield "user dir", str(user_dir)
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "platform", f"{platform.platform()}, {os.cpu_count()} CPUs"
    yield from fairseq_lines(_finish(started["fairseq"]))
    for name in ("torch", "soundfile"):
        version, found = _version(name), _finish(started[name])
        yield from found.items() if isinstance(found, dict) else [(name, _broken(version, found))]
    for name in REQUIRED:
        yield name, _version(name)
    versions = {name: _version(name) for name in OPTIONAL}
    there = [f"{name} {version}" for name, version in versions.items() if version != MISSING]
    yield "optional", ", ".join(there) or "none"
    yield MISSING, ", ".join(name for name, version in versions.items() if version == MISSING) or "nothing"
    yield "variables", ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ) or "none"


def fairseq_lines(found: Mapping[str, str] | str) -> Iterator[tuple[str, str]]:
    """Name the installed distributions of fairseq, of which there should be one.

    Args:
        found: object with ``version`` if fairseq can be imported, else the error.
    """
    installed = [f"{name} {version}" for name in FAIRSEQS if (version := _version(name)) != MISSING]
    text = " and ".join(installed) or MISSING
    if not installed and isinstance(found, Mapping):
        text = f"{found['version']}, not installed by pip"
    if len(installed) > 1:
        text += " (keep one: all import as fairseq)"
    yield "fairseq", text if isinstance(found, Mapping) else _broken(text, found)


def _broken(version: str, error: str) -> str:
    absent = version == MISSING and error.startswith("ModuleNotFoundError")
    return version if absent else f"{version}, cannot be imported: {error}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return MISSING


def _commit(checkout: Path) -> str:
    """Name the commit of a checkout; empty outside a checkout."""
    if not (checkout / ".git").exists():
        return ""
    git = ("git", "-C", str(checkout))
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ", a checkout of unknown commit"
    return f", commit {commit.stdout.strip()}{' with changes' if changed.stdout else ''}"


def _start(code: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finish(process: "subprocess.Popen[str]") -> dict[str, str] | str:
    """Wait for a probe: the object that it printed, or its error in one line."""
    try:
        output, errors = process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"no answer within {_PATIENCE} s"
    if process.returncode == 0:
        found: dict[str, str] = json.loads(output.splitlines()[-1])
        return found
    said = [line for line in errors.splitlines() if line.strip()]
    return said[-1] if process.returncode > 0 and said else f"ended with status {process.returncode}"


def _without_home(text: object) -> str:
    home = str(Path.home())
    return str(text).replace(home, "~") if len(home) > 1 else str(text)


if __name__ == "__main__":
    main()
