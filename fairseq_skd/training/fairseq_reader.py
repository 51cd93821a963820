"""fairseq's own reader of checkpoints, replaced: for its programs that load a model of ours, such as its infer.py.

fairseq's reader hands the configuration in a file to omegaconf, which follows ``${oc.env:...}``, and runs what the file
holds where ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` is set.
"""

import functools
from pathlib import Path
from typing import Any

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from omegaconf import OmegaConf

from fairseq_skd.compat import weights_only
from fairseq_skd.encoders.checkpoint import load_checkpoint
from fairseq_skd.models.trained import read_trained
from fairseq_skd.training.trainer_state import for_trainer


def replace_reader() -> None:
    """Make ``checkpoint_utils.load_checkpoint_to_cpu`` read with ours; what another model needs, it reads on itself."""
    read = checkpoint_utils.load_checkpoint_to_cpu
    if not hasattr(read, "__wrapped__"):
        checkpoint_utils.load_checkpoint_to_cpu = functools.wraps(read)(functools.partial(_read, read))


def _read(
    read: Any, path: str, arg_overrides: dict[str, Any] | None = None, load_on_all_ranks: bool = False
) -> dict[str, Any]:
    """Read a checkpoint as fairseq does.

    Raises:
        UserError: see :func:`~fairseq_skd.encoders.checkpoint.load_checkpoint`, and
            :func:`~fairseq_skd.models.trained.read_trained` for a model of ours.
    """
    file = Path(PathManager.get_local_path(path))
    state = load_checkpoint(file)
    name = getattr(state["args"], "arch", None) if state["cfg"] is None else state["cfg"]["model"].get("_name")
    if name != "skd_ctc":
        del state  # before the second copy
        with weights_only():
            return read(path, arg_overrides, load_on_all_ranks)
    trained = read_trained(state, file)
    config = OmegaConf.create(trained.config)
    if arg_overrides is not None:
        checkpoint_utils.overwrite_args_by_name(config, arg_overrides)
    task_state = {} if trained.dictionary is None else {"target_dictionary": trained.dictionary}
    return {**for_trainer(file, state, resumed=True), "args": None, "cfg": config, "task_state": task_state}
