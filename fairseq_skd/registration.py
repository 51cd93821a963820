"""Register with fairseq: importing this module registers everything, once.

``models``, ``criterions`` and ``training`` begin with this import. It registers the model
``skd_ctc`` and the criteria ``skd_ctc`` and ``kd_ctc``. It makes checkpoint loading weights-only,
fixes how fairseq reads labels and audio and writes checkpoints, and speeds up HuBERT's pretraining
loss. And it adds checks of a training's configuration, data and losses.
"""

import functools
from pathlib import Path
from typing import Any

import fairseq.utils

from fairseq_skd import compat, fairseq_fixes
from fairseq_skd.criterions import kd_ctc, skd_ctc  # noqa: F401  (registers)
from fairseq_skd.errors import UserError, end_hydra_with_a_sentence
from fairseq_skd.models import skd_ctc as model  # noqa: F401  (registers)
from fairseq_skd.training import divergence, door, splits, starting

PACKAGE = Path(__file__).resolve().parent


def is_this_package(user_dir: str) -> bool:
    """Tell whether a user dir is this folder, directly or through a link.

    Raises:
        UserError: the user dir is another copy of this package.
    """
    folder = Path(user_dir).expanduser().resolve()
    if folder != PACKAGE and folder.name == PACKAGE.name:
        raise UserError(
            f"common.user_dir={folder} is a second copy of fairseq_skd, {PACKAGE} is already imported: "
            f"use only one (python -m fairseq_skd prints its path)"
        )
    return folder == PACKAGE


def _enter_training() -> None:
    """Hook into fairseq's training program, which may have been imported after this package."""
    end_hydra_with_a_sentence()
    door.check_at_the_door()


def _recognize_user_dir() -> None:
    """Make fairseq's ``import_user_module`` accept this folder again, and name both of two copies.

    fairseq compares paths as strings. It refuses a link to the imported folder like a second copy,
    and its message names only one of the two.
    """
    original = fairseq.utils.import_user_module

    @functools.wraps(original)
    def import_user_module(args: Any) -> None:
        user_dir = getattr(args, "user_dir", None)
        if user_dir is not None and is_this_package(user_dir):
            _enter_training()
        else:
            original(args)

    fairseq.utils.import_user_module = import_user_module


def _register() -> None:
    _enter_training()
    compat.prefer_weights_only()
    fairseq_fixes.read_whole_labels()
    fairseq_fixes.check_audio_files()
    fairseq_fixes.write_whole_checkpoints()
    fairseq_fixes.report_unsent_batches()
    fairseq_fixes.speed_up_hubert_pretraining()
    starting.replace_reader()
    starting.read_checkpoints_of_trainings()
    splits.check_data_of_trainings()
    divergence.tell_where_training_diverges()
    _recognize_user_dir()


_register()
