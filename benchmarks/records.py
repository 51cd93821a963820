"""Write the JSON of a benchmark."""

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import fairseq
import torch

from benchmarks.base_encoder import Setting
from fairseq_skd.files.disk import replacing


def processor() -> str:
    """Return the name of the CPU, as Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def save(path: Path | None, chosen: Setting | argparse.Namespace, figures: dict[str, Any], raw: dict[str, Any]) -> None:
    """Write command, environment, figures and all measurements as JSON, if a path is given."""
    if path is None:
        return
    content = {
        "command": sys.argv,
        "setting": vars(chosen),
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "fairseq": fairseq.__version__,
            "machine": platform.machine(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg(),
        },
        "figures": figures,
        "raw": raw,
    }
    with replacing(path) as beside:
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
