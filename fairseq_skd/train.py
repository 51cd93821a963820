"""``python -m fairseq_skd.train NAME key=value ...``: fine-tune with the recipe NAME.

The command works from any folder. It finds the YAML and the user dir, checks that the GPUs are
there, prints the ``fairseq-hydra-train`` command that it stands for, and replaces itself with it.
"""

import argparse
import importlib.util
import math
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_skd.cli import compose, hydra_overrides, quieten_hydra, shipped_folder, yaml_names
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.files.disk import absolute
from fairseq_skd.recipe_keys import check_override, check_required, merged, read_override

PACKAGE = Path(__file__).resolve().parent
_DESCRIPTION = """\
Fine-tune an encoder with the recipe NAME. The command prints the fairseq-hydra-train command that it stands for and
replaces itself with it. Relative paths start in the current folder. With checkpoint.save_dir=DIR, the log
hydra_train.log is written to DIR as well. An unknown NAME lists the recipes.
"""
_EXAMPLES = """\
examples
HuBERT base on 100 hours, on two GPUs:
  python -m fairseq_skd.train hubert_base_100h task.data=/data/manifests \\
      model.w2v_path=/models/hubert_base_ls960.pt checkpoint.save_dir=/runs/skd \\
      distributed_training.distributed_world_size=2 'optimization.update_freq=[4]'
a small encoder, on one GPU or the CPU:
  python -m fairseq_skd.train hubert_mini task.data=/data/manifests model.w2v_path=/models/hubert_mini.pt \\
      checkpoint.save_dir=/runs/skd
the whole configuration, without a training:
  python -m fairseq_skd.train hubert_mini --cfg job
"""
# Keys that hold paths. fairseq would look for a relative path in Hydra's run folder.
_PATHS = {
    *("common.user_dir", "common.tensorboard_logdir", "common.log_file", "task.data", "task.label_dir"),
    *("model.w2v_path", "checkpoint.save_dir", "checkpoint.restore_file", "checkpoint.finetune_from_model"),
    *(
        "criterion.teacher_path",
        "criterion.wer_kenlm_model",
        "criterion.wer_lexicon",
        "hydra.run.dir",
        "hydra.sweep.dir",
    ),
}
_IN_SAVE_DIR = "checkpoint_last.pt"  # as checkpoint.restore_file it lies in checkpoint.save_dir
_WORLD, _FREQUENCY = "distributed_training.distributed_world_size", "optimization.update_freq"
_METHOD, _NO_SPAWN = "distributed_training.distributed_init_method", "distributed_training.distributed_no_spawn"
_PORT = "distributed_training.distributed_port"
_BATCH = {_FREQUENCY, "dataset.max_tokens", "dataset.batch_size"}
_TORCHRUN = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")  # fairseq requires all four


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, check it, and become ``fairseq-hydra-train``."""
    args = _parser().parse_intermixed_args(arguments)
    folder = absolute(args.config_dir) if args.config_dir else shipped_folder("finetune")
    name = _recipe(args.name, folder)
    recipe = compose(folder, name)
    plain = OmegaConf.to_container(recipe, resolve=False)
    given = [read_override(_with_absolute_path(word, args.multirun)) for word in args.overrides]
    overrides = [check_override(override, plain) for override in given]
    config = recipe if args.multirun else merged(recipe, given)
    if not _select(config, "common.user_dir"):
        overrides.insert(0, *hydra_overrides({"common.user_dir": PACKAGE}))
    if not (args.cfg or args.multirun):  # a sweep may run on other machines
        check_required(config)
        batches = _batches(config if _BATCH & {override.key_or_group for override in given} else recipe)
        check_gpus(config, batches, os.environ)
        if remark := remark_on_batch(config, batches):
            print(f"fairseq_skd.train: {remark}", file=sys.stderr)
        overrides += log_beside_checkpoints(folder / f"{name}.yaml", given)
    program, shown = hydra_train()
    words = ["--config-dir", str(folder), "--config-name", name, *overrides, *_flags(args)]
    print(" ".join(map(_for_shell, [*shown, *words])), file=sys.stderr, flush=True)
    os.execv(program[0], [*program, *words])


def _recipe(name: str | None, folder: Path) -> str:
    """Check the recipe's name.

    Returns:
        the name without ``.yaml``.

    Raises:
        UserError: the folder has no such YAML.
    """
    known = yaml_names(folder)
    there = f"there are: {', '.join(known)}" if known else f"{folder} has no YAML"
    if name is None or "=" in name:
        raise UserError(f"give the name of a recipe first, as in python -m fairseq_skd.train hubert_mini; {there}")
    if name.removesuffix(".yaml") in known:
        return name.removesuffix(".yaml")
    file = Path(name)
    own = f"; for your own YAML give --config-dir {file.parent} {file.stem}" if file.is_file() else ""
    raise UserError(f"there is no recipe {name}; {there}{own}")


def _with_absolute_path(word: str, several: bool) -> str:
    """Make a typed path absolute; quote it if Hydra's grammar needs quotes.

    Other keys, null, interpolations, addresses, and several values stay as they are.
    """
    key, _, value = word.partition("=")
    if key.lstrip("+") not in _PATHS:
        return word
    if value[:1] in ("'", '"') or (several and set(value) & {",", "("}):
        value = read_override(word).value()
    if not isinstance(value, str) or value in ("", "null", _IN_SAVE_DIR) or "://" in value or "${" in value:
        return word
    return hydra_overrides({key: absolute(value)})[0]


def check_gpus(config: DictConfig, batches: int, environment: Mapping[str, str]) -> None:
    """Check that this machine has the GPUs that fairseq will use.

    With too few GPUs fairseq ends with an assertion. With ``distributed_init_method`` and no GPU it
    starts no process and ends with exit status 0.

    Args:
        config: configuration of the training.
        batches: batches per update, which a training on fewer GPUs should keep; 0 if unknown.
        environment: variables of torchrun and Slurm.

    Raises:
        UserError: there are too few GPUs.
    """
    world, method = _select(config, _WORLD), _select(config, _METHOD)
    if not isinstance(world, int) or _select(config, "common.tpu") or _select(config, _NO_SPAWN):
        return  # fairseq takes all GPUs that it finds, or each rank has its own command
    if world < 1:
        raise UserError(f"{_WORLD}={world} is out of range: set it to at least 1")
    wanted = 1 if method else _wanted_gpus(config, world, environment)
    there = _gpus() if wanted else 0
    if there >= wanted:
        return
    has = f"this machine has {there or 'none'}"
    if method:
        raise UserError(
            f"{_METHOD}={method} starts one process per GPU and {has}: leave it out and give {_WORLD}=1, or start one "
            f"command per rank with {_NO_SPAWN}=true"
        )
    if wanted < world:
        raise UserError(f"{_WORLD}={world} needs {wanted} GPU{'s' * (wanted > 1)} on each machine, {has}: ask for more")
    if (machines := _count(environment, "SLURM_NNODES")) > 1:
        port = f"give {_PORT}=29500 to use all {machines} machines of this Slurm job"
        raise UserError(f"{_WORLD}={world} needs {world} GPUs, {has}: {port}")
    raise UserError(f"{_WORLD}={world} needs {world} GPUs, {has}: {_fewer_gpus(config, batches or world, there)}")


def _wanted_gpus(config: DictConfig, world: int, environment: Mapping[str, str]) -> int:
    """Count the GPUs that ``world`` processes need on this machine; one process may use the CPU.

    Without ``distributed_port``, fairseq starts all processes on this machine, also under Slurm.
    """
    if world == 1:
        return 0
    if all(name in environment for name in _TORCHRUN):
        return _count(environment, "LOCAL_WORLD_SIZE")
    port = _select(config, _PORT)
    machines = _count(environment, "SLURM_NNODES") if isinstance(port, int) and port > 0 else 1
    return math.ceil(world / machines)


def _count(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    return max(int(value), 1) if value.isdecimal() else 1


def _gpus() -> int:
    import torch  # here: it takes seconds, and most trainings have one GPU

    return torch.cuda.device_count()


def _fewer_gpus(config: DictConfig, batches: int, gpus: int) -> str:
    """Name the keys that keep the batch on at most this number of GPUs."""
    world = max(n for n in range(1, max(gpus, 1) + 1) if batches % n == 0)
    keys = f"give {_WORLD}={world} '{_FREQUENCY}=[{batches // world}]'"
    if gpus:
        return f"{keys}, which is the same batch"
    halves = "".join(f" common.{key}=false" for key in ("fp16", "amp") if _select(config, f"common.{key}"))
    return f"{keys}{halves}, which is the same batch on the CPU, or take hubert_mini for a small encoder"


def remark_on_batch(config: DictConfig, batches: int) -> str:
    """Say that the number of GPUs changes the recipe's batch; empty if it does not.

    Args:
        config: configuration of the training.
        batches: batches per update in the recipe; 0 if unknown.
    """
    now = _batches(config)
    if now == batches or not now or not batches:
        return ""
    world = _select(config, _WORLD)
    keep = f": '{_FREQUENCY}=[{batches // world}]' keeps the recipe's" if batches % world == 0 else ""
    return f"an update has {now} x dataset.max_tokens samples, in the recipe {batches} x{keep}"


def _batches(config: DictConfig) -> int:
    """Count the batches per update, GPUs x ``update_freq``; 0 if the YAML does not say both."""
    world, often = _select(config, _WORLD), _select(config, f"{_FREQUENCY}.0")
    return world * often if isinstance(world, int) and isinstance(often, int) else 0


def _select(config: DictConfig, key: str) -> Any:
    """Read a value; None if it is missing, null or an interpolation that fails."""
    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None


def log_beside_checkpoints(yaml: Path, overrides: Sequence[Override]) -> list[str]:
    """Let the log be written beside the checkpoints, unless a folder is given for it.

    Args:
        yaml: the recipe.
        overrides: overrides of the command line.

    Returns:
        ``hydra.run.dir=<checkpoint.save_dir>``, or nothing.

    Raises:
        UserError: the folder cannot be made; Hydra would end with a traceback.
    """
    given = {override.key_or_group: override.value() for override in overrides}
    save_dir = given.get("checkpoint.save_dir")
    if "hydra.run.dir" in given or OmegaConf.select(OmegaConf.load(yaml), "hydra.run.dir"):
        return []
    if not isinstance(save_dir, str) or not save_dir or "$" in save_dir:
        return []
    folder = Path(save_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"{folder} cannot be made ({error.strerror})"
        raise UserError(f"checkpoint.save_dir: {why}; give a folder that can be written") from error
    return list(hydra_overrides({"hydra.run.dir": folder}))


def hydra_train() -> tuple[list[str], list[str]]:
    """Find the ``fairseq-hydra-train`` that belongs to this Python.

    Returns:
        the words to execute, and the words to print: the name alone, if a shell finds it.

    Raises:
        UserError: fairseq is not installed.
    """
    name = "fairseq-hydra-train"
    script = Path(sys.executable).with_name(name)
    if script.is_file():
        found = shutil.which(name)
        return [str(script)], [name if found and os.path.samefile(found, script) else str(script)]
    if importlib.util.find_spec("fairseq_cli") is None:
        raise UserError("fairseq is not installed for this Python: pip install fairseq_skd brings the one that fits")
    words = [sys.executable, "-m", "fairseq_cli.hydra_train"]
    return words, words


def _for_shell(word: str) -> str:
    plain = "'" not in word or set(word) & set('"$`\\!')
    return shlex.quote(word) if plain else f'"{word}"'  # legible: a path in Hydra's quotes


def _flags(args: argparse.Namespace) -> list[str]:
    cfg = ["--cfg", args.cfg] if args.cfg else []
    if args.resolve and not hasattr(hydra, "compose"):
        raise UserError("--resolve needs Hydra 1.1 or later: leave it out")
    return cfg + [f"--{flag}" for flag in ("resolve", "multirun") if getattr(args, flag)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd.train",
        usage="%(prog)s [options] NAME key=value ...",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the recipe to set")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="folder of your own YAML files")
    parser.add_argument("--multirun", "-m", action="store_true", help="Hydra's: train for each value of key=a,b")
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"), help="Hydra's: print the configuration only")
    parser.add_argument("--resolve", action="store_true", help="Hydra's: with --cfg, resolve interpolations")
    return parser


if __name__ == "__main__":
    quieten_hydra()
    sys.exit(run_command("fairseq_skd.train", main))
