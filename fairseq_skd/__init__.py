"""fairseq_skd: CTC fine-tuning with scheduled frame-level self-knowledge distillation, as a fairseq user dir.

Importing it registers the model and the criterion ``skd_ctc`` and makes checkpoint loading weights-only.
"""

from pathlib import Path

if __name__ != "fairseq_skd":
    raise ImportError(f"the user dir {Path(__file__).parent} must keep its name, fairseq_skd: rename the folder back")

from fairseq_skd import compat

compat.prefer_weights_only()
compat.name_both_copies(Path(__file__).resolve().parent)

from fairseq_skd import criterions, models  # noqa: E402  (registration; the lines above must come first)

__version__ = "0.1.0"
__all__ = ["criterions", "models"]
