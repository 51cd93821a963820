"""``python -m fairseq_skd.train NAME key=value ...``: fine-tune with the recipe NAME.

The command works from any folder. It finds the YAML and the user dir, checks that the GPUs are
there, prints the ``fairseq-hydra-train`` command that it stands for, and replaces itself with it.
"""

import argparse
import importlib.util
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_skd.cli import compose, hydra_overrides, quieten_hydra, shipped_folder, yaml_names
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.files.disk import absolute

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
    *("common.user_dir", "common.tensorboard_logdir", "task.data", "task.label_dir", "model.w2v_path"),
    *("checkpoint.save_dir", "checkpoint.restore_file", "checkpoint.finetune_from_model", "criterion.teacher_path"),
    *("criterion.wer_kenlm_model", "criterion.wer_lexicon", "hydra.run.dir", "hydra.sweep.dir"),
}
_IN_SAVE_DIR = "checkpoint_last.pt"  # as checkpoint.restore_file it lies in checkpoint.save_dir
# Sections in which fairseq has more keys than the YAML.
_FAIRSEQ = {
    *("common", "common_eval", "distributed_training", "dataset", "optimization", "checkpoint", "bmuf", "ema"),
    *("generation", "eval_lm", "interactive", "scoring", "bpe", "tokenizer"),
}
_SECTION = "distributed_training"
_WORLD, _FREQUENCY = f"{_SECTION}.distributed_world_size", "optimization.update_freq"
_BATCH = {_FREQUENCY, "dataset.max_tokens", "dataset.batch_size"}
_TORCHRUN = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")  # fairseq requires all four


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, check it, and become ``fairseq-hydra-train``."""
    args = _parser().parse_intermixed_args(arguments)
    folder = absolute(args.config_dir) if args.config_dir else shipped_folder("finetune")
    name, overrides = split_words(args.words, folder)
    overrides = [_with_absolute_path(override, args.multirun) for override in overrides]
    keys = {_key(override) for override in overrides}
    recipe = compose(folder, name)
    config = compose(folder, name, to_check(overrides, recipe, args.multirun))
    if not _select(config, "common.user_dir"):
        overrides.insert(0, *hydra_overrides({"common.user_dir": PACKAGE}))
    if not args.cfg:
        if not (args.multirun and "hydra/launcher" in keys):  # a launcher uses other machines' GPUs
            here = _batches(config)
            batches = here if keys & _BATCH else _batches(recipe) or here
            check_gpus(config, batches, os.environ)
            if here and batches != here:
                print(f"fairseq_skd.train: {remark_on_batch(config, batches)}", file=sys.stderr)
        if not args.multirun:
            overrides += log_beside_checkpoints(folder / f"{name}.yaml", overrides)
    program, shown = hydra_train()
    words = ["--config-dir", str(folder), "--config-name", name, *overrides, *_flags(args)]
    print(" ".join(map(_for_shell, [*shown, *words])), file=sys.stderr, flush=True)
    os.execv(program[0], [*program, *words])


def split_words(words: Sequence[str], folder: Path) -> tuple[str, list[str]]:
    """Separate the recipe's name from the overrides. Their order does not matter.

    Args:
        words: words of the command line.
        folder: folder of the YAML files.

    Returns:
        the name without ``.yaml``, and the overrides.

    Raises:
        UserError: the name is missing or unknown, or another word is no override.
    """
    known = yaml_names(folder)
    there = f"{folder} has no YAML" if not known else f"there are: {', '.join(known)}"
    overrides = [word for word in words if _is_override(word)]
    others = [word for word in words if not _is_override(word)]
    if not others:
        raise UserError(f"give the name of a recipe, as in python -m fairseq_skd.train hubert_mini; {there}")
    found = [word for word in others if word.removesuffix(".yaml") in known]
    name = found[0] if found else others[0]
    others.remove(name)
    if not found:
        file = Path(name)
        own = f"; for your own YAML give --config-dir {file.parent} {file.stem}" if file.is_file() else ""
        raise UserError(f"there is no recipe {name}; {there}{own}")
    if others:
        raise UserError(f"{others[0]} cannot be read: give a key and its value with = and no space between, key=value")
    return name.removesuffix(".yaml"), overrides


def _is_override(word: str) -> bool:
    return word.startswith("~") or ("=" in word and bool(_key(word)))


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _with_absolute_path(override: str, several: bool) -> str:
    """Make a typed path absolute. It is quoted if Hydra's grammar needs quotes.

    Other keys, null, interpolations and addresses stay as they are.
    """
    key, _, value = override.partition("=")
    if key.lstrip("+") not in _PATHS:
        return override
    value = value if several else _unquoted(value)
    if value in ("", "null", "???", _IN_SAVE_DIR) or "${" in value or "://" in value:
        return override
    if several and set(value) & set("('\""):
        return override
    paths = value.split(",") if several else [value]
    texts = [hydra_overrides({key: absolute(path)})[0].removeprefix(f"{key}=") for path in paths]
    return f"{key}={','.join(texts)}"


def _unquoted(value: str) -> str:
    quote = value[:1]
    if quote not in ("'", '"') or value[-1:] != quote or len(value) < 2:
        return value
    return value[1:-1].replace(f"\\{quote}", quote)


def to_check(overrides: Sequence[str], recipe: DictConfig, several: bool) -> list[str]:
    """Rewrite overrides so that Hydra can check them without fairseq.

    Overrides of Hydra's own settings are left out. A key that only fairseq knows gets a ``+``:
    Hydra would refuse it here.

    Args:
        overrides: overrides of the command line.
        recipe: the composed YAML.
        several: take the first of several values (``--multirun``).
    """
    plain = OmegaConf.to_container(recipe, resolve=False)
    checked = []
    for override in overrides:
        section = re.split("[./]", _key(override))[0]
        if section == "hydra":
            continue
        added = section in _FAIRSEQ and override[0] not in "+~" and not _has(plain, _key(override))
        checked.append("+" * added + (_first_value(override) if several else override))
    return checked


def _has(config: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return False
        config = config[part]
    return True


def _first_value(override: str) -> str:
    try:
        parsed = OverridesParser.create().parse_override(override)
    except Exception:  # Hydra's own, or of its generated parser; compose reports the mistake
        return override
    key = override.partition("=")[0]
    return f"{key}={next(iter(parsed.sweep_string_iterator()))}" if parsed.is_sweep_override() else override


def check_gpus(config: DictConfig, batches: int, environment: Mapping[str, str]) -> None:
    """Check that this machine has the GPUs that fairseq will use.

    With too few GPUs fairseq ends with an assertion. With ``distributed_init_method`` and no GPU it
    starts no process and ends with exit status 0.

    Args:
        config: configuration of the training.
        batches: batches per update, which a training on fewer GPUs should keep; 0 if unknown.
        environment: variables of torchrun and Slurm.

    Raises:
        UserError: there are too few GPUs, or the processes of torchrun would train separately.
    """
    world = _select(config, _WORLD)
    if not isinstance(world, int) or _select(config, "common.tpu"):  # fairseq's default: all GPUs
        return
    if world < 1:
        raise UserError(f"{_WORLD}={world} is out of range: it has to be at least 1")
    begun = int(environment["WORLD_SIZE"]) if all(name in environment for name in _TORCHRUN) else 0
    method = _select(config, f"{_SECTION}.distributed_init_method")
    if begun > 1 and world == 1 and not method:
        alone = f"makes each of the {begun} processes of torchrun train alone"
        raise UserError(f"{_WORLD}=1 {alone}: give {_WORLD}={begun}")
    wanted = wanted_gpus(config, environment)
    there = _gpus() if wanted else 0
    if there >= wanted:
        return
    has = f"this machine has {there or 'none'}"
    if method:
        raise UserError(
            f"{_SECTION}.distributed_init_method={method} starts one process per GPU and {has}: leave it out and give "
            f"{_WORLD}=1, or start one command per rank with {_SECTION}.distributed_no_spawn=true"
        )
    if wanted != world or begun:
        raise UserError(f"{_WORLD}={world} needs {wanted} GPU{'s' * (wanted > 1)} on each machine, {has}: ask for more")
    raise UserError(f"{_WORLD}={world} needs {world} GPUs, {has}: {_fewer_gpus(config, batches, there)}")


def wanted_gpus(config: DictConfig, environment: Mapping[str, str]) -> int:
    """Count the GPUs that fairseq needs on this machine.

    Args:
        config: configuration of the training.
        environment: variables of torchrun and Slurm.

    Returns:
        the number of GPUs; 0 if fairseq needs none.
    """
    world = int(_select(config, _WORLD))
    if _select(config, f"{_SECTION}.distributed_no_spawn"):
        return 0  # one command per rank, perhaps on the CPU
    if _select(config, f"{_SECTION}.distributed_init_method"):
        return 1  # one process per GPU here; other machines have the rest
    if world == 1:
        return 0
    if all(name in environment for name in _TORCHRUN):
        return int(environment.get("LOCAL_WORLD_SIZE", 1))
    return math.ceil(world / int(environment.get("SLURM_NNODES", 1)))


def _gpus() -> int:
    import torch  # here: it takes seconds, and most trainings have one GPU

    return torch.cuda.device_count()


def _fewer_gpus(config: DictConfig, batches: int, gpus: int) -> str:
    """Name the keys that keep the batch on at most this number of GPUs."""
    batches = batches or int(_select(config, _WORLD))
    world = max(n for n in range(1, max(gpus, 1) + 1) if batches % n == 0)
    keys = f"{_WORLD}={world} '{_FREQUENCY}=[{batches // world}]'"
    if gpus:
        return f"give {keys}, which is the same batch"
    halves = [f"common.{key}=false" for key in ("fp16", "amp") if _select(config, f"common.{key}")]
    keys = " ".join([keys, *halves])
    small = ", or take hubert_mini for a small encoder" if batches > 1 else ""
    return f"give {keys}, which is the same batch on the CPU{small}"


def remark_on_batch(config: DictConfig, batches: int) -> str:
    """Say that the number of GPUs changes the recipe's batch.

    Args:
        config: configuration of the training.
        batches: batches per update in the recipe.
    """
    world = int(_select(config, _WORLD))
    keep = f": '{_FREQUENCY}=[{batches // world}]' keeps the recipe's" if batches % world == 0 else ""
    return f"an update has {_batches(config)} x dataset.max_tokens samples, in the recipe {batches} x{keep}"


def _batches(config: DictConfig) -> int:
    """Count the batches per update, GPUs x ``update_freq``; 0 if fairseq chooses the GPUs."""
    world, frequency = _select(config, _WORLD), _select(config, _FREQUENCY)
    often = frequency[0] if isinstance(frequency, ListConfig) and frequency else 1
    return world * often if isinstance(world, int) and isinstance(often, int) else 0


def _select(config: DictConfig, key: str) -> Any:
    """Read a value; None if it is missing, null or an interpolation that fails."""
    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None


def log_beside_checkpoints(yaml: Path, overrides: Sequence[str]) -> list[str]:
    """Choose the folder of the log and make it.

    Hydra would end with a traceback if the folder cannot be made.

    Args:
        yaml: the recipe.
        overrides: overrides of the command line.

    Returns:
        ``hydra.run.dir=<checkpoint.save_dir>``, if the user gave a ``save_dir`` and no folder of
        the log; else nothing.

    Raises:
        UserError: the folder cannot be made or is not writable.
    """
    given = {_key(override): override.partition("=")[2] for override in overrides}
    save_dir, run_dir = given.get("checkpoint.save_dir"), given.get("hydra.run.dir")
    if run_dir is None and OmegaConf.select(OmegaConf.load(yaml), "hydra.run.dir") is not None:
        return []
    key = "checkpoint.save_dir" if run_dir is None and save_dir else "hydra.run.dir"
    value = given.get(key, "outputs")
    if "${" not in value:
        folder = Path(_unquoted(value))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = f"{folder.absolute()} cannot be made ({error.strerror})"
            raise UserError(f"{key}: {why}; give checkpoint.save_dir=DIR, a folder that can be written") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"{key}={value} is not writable: give a folder that is")
    return [f"hydra.run.dir={value}"] if key == "checkpoint.save_dir" else []


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
    return cfg + [f"--{flag}" for flag in ("resolve", "multirun") if getattr(args, flag)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd.train",
        usage="%(prog)s [options] NAME key=value ...",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="NAME key=value", help="the recipe, and keys of its YAML to set")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="folder of your own YAML files")
    parser.add_argument("--multirun", "-m", action="store_true", help="Hydra's: train for each value of key=a,b")
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"), help="Hydra's: print the configuration only")
    parser.add_argument("--resolve", action="store_true", help="Hydra's: with --cfg, resolve interpolations")
    return parser


if __name__ == "__main__":
    quieten_hydra()
    sys.exit(run_command("fairseq_skd.train", main))
