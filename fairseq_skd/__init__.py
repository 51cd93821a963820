"""fairseq_skd: CTC fine-tuning with scheduled frame-level self-knowledge distillation, as a fairseq user dir.

Importing it registers the model ``skd_ctc`` and the criteria ``skd_ctc`` and ``kd_ctc``, makes checkpoint loading
weights-only, fixes how fairseq reads labels and audio and writes checkpoints, speeds up HuBERT's pretraining loss,
and checks a training's configuration and numbers. That takes seconds, for torch and fairseq. The commands in
``LIGHT_COMMANDS`` need neither and are spared it: where Python was started with ``-m`` and one of them, there is nobody
else to register for.
(Registration on first use would not do: fairseq takes a user dir that is imported already for one that has registered
all it has.)
"""

import sys
from pathlib import Path

if __name__ != "fairseq_skd":
    raise ImportError(f"the user dir {Path(__file__).parent} must keep its name, fairseq_skd: rename the folder back")

LIGHT_COMMANDS = ("fairseq_skd", "fairseq_skd.manifest")


def _is_light() -> bool:
    """Whether this import is the first step of ``python -m`` one of the light commands.

    While Python looks for the module that ``-m`` names, which imports its package, argv is ``["-m", *arguments]``;
    orig_argv holds the name before those arguments.
    """
    if sys.argv[:1] != ["-m"] or len(sys.orig_argv) < len(sys.argv):
        return False
    return sys.orig_argv[-len(sys.argv)] in LIGHT_COMMANDS


__version__ = "0.2.0"

if not _is_light():
    from fairseq_skd import compat, fairseq_fixes, hubert_nce
    from fairseq_skd.errors import end_hydra_with_a_sentence

    end_hydra_with_a_sentence()
    compat.prefer_weights_only()
    fairseq_fixes.read_whole_labels()
    fairseq_fixes.check_audio_files()
    fairseq_fixes.write_whole_checkpoints()
    fairseq_fixes.hand_over_batches_or_tell()
    compat.name_both_copies(Path(__file__).resolve().parent)
    hubert_nce.speed_up_hubert_pretraining()

    from fairseq_skd import criterions, models  # noqa: F401  (registration; the lines above must come first)
    from fairseq_skd.training import divergence, door, fairseq_reader, starting

    door.check_at_the_door()
    fairseq_reader.replace_reader()
    starting.read_checkpoints_of_trainings()
    divergence.tell_where_training_diverges()
