"""Writes config/finetune/<encoder>_<amount>.yaml, hubert_mini_<baseline>.yaml and the table in config/README.md.

python config/generate.py            write them
python config/generate.py --check    write nothing; fail if one of them is not as it would be written

A recipe's YAML is the template, templates/finetune.yaml.in, with the values of the recipe (recipes.py) and a comment
that says whose they are and where they depart; a baseline's is hubert_mini.yaml with some lines changed (baselines.py).
"""

import argparse
import string
import sys
import textwrap
from pathlib import Path
from typing import Any

from baselines import BASELINES, render_baseline
from recipes import AMOUNTS, ENCODERS, Plan, plan

from fairseq_skd.errors import UserError, run_command
from fairseq_skd.files import replacing
from fairseq_skd.objective.schedule import AlphaSchedule

HERE = Path(__file__).resolve().parent
_BEGIN, _END = "<!-- written by generate.py -->\n", "<!-- end -->\n"


class Template(string.Template):
    """``%{group.key}`` stands for a value; $ belongs to the shell and to interpolations."""

    delimiter = "%"
    idpattern = "[a-z][a-z0-9_.]*"


def render(encoder: str, amount: str) -> str:
    """The text of config/finetune/<encoder>_<amount>.yaml."""
    chosen, model = plan(encoder, amount), ENCODERS[encoder]
    values = chosen.values()
    values.update(
        {
            "task.normalize": model.normalize,
            "model.student_layers": [model.layers // 2],
            "header": _header(encoder, amount, chosen),
            "frozen": _frozen(values),
            "batches": _batches(values),
        }
    )
    texts = {key: _text(value) for key, value in values.items()}
    texts["task"] = _template(f"task_{model.task}").substitute(texts).rstrip("\n")
    return _template("finetune").substitute(texts)


def _template(name: str) -> Template:
    return Template((HERE / "templates" / f"{name}.yaml.in").read_text(encoding="utf-8"))


def _text(value: Any) -> str:
    """A value as it stands in the YAML. Rates keep a point: 3e-05 would be a string to some readers of YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:.1e}" if isinstance(value, float) and 0 < value < 1e-3 else str(value)


def _frozen(values: dict[str, Any]) -> str:
    frozen, updates = values["model.freeze_finetune_updates"], values["optimization.max_update"]
    if not frozen:
        return "the encoder trains from the start"
    alpha = AlphaSchedule(max_update=updates)(frozen)
    return f"{_percent(frozen / updates)} of the updates train the heads alone; alpha is {alpha:.2f} by then"


def _batches(values: dict[str, Any]) -> int:
    """Batches of ``dataset.max_tokens`` in an update."""
    (repeat,) = values["optimization.update_freq"]
    return int(values["distributed_training.distributed_world_size"] * repeat)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _header(encoder: str, amount: str, chosen: Plan) -> str:
    model, values = ENCODERS[encoder], chosen.values()
    gpus, (repeat,) = values["distributed_training.distributed_world_size"], values["optimization.update_freq"]
    hours = "1 hour" if amount == "1h" else f"{amount[:-1]} hours"
    title = f"{model.title} on {hours}, with self-knowledge distillation."
    samples = values["dataset.max_tokens"] / 1e6
    lines = [
        f"{title} Written by config/generate.py: change that instead.",
        f"Values are those of fairseq's examples/{chosen.source}. {chosen.derived}".rstrip(),
        *(f"- {change.what}: {change.why}." for change in chosen.changes),
        f"An update has {gpus} GPUs x {repeat} batches of up to {samples:g}M samples; on another number of GPUs keep "
        f"distributed_world_size x update_freq at {_batches(values)}.",
    ]
    comment = [
        line for text in lines for line in textwrap.wrap(text, 116, subsequent_indent="  " * text.startswith("- "))
    ]
    command = [
        f"  fairseq-hydra-train --config-dir config/finetune --config-name {encoder}_{amount} \\",
        '    common.user_dir="$(python -m fairseq_skd)" task.data=/abs/manifests '
        f"model.w2v_path=/abs/{model.checkpoint}",
    ]
    return "\n".join(f"# {line}".rstrip() for line in [*comment, "", *command])


def table() -> str:
    """The recipes as Markdown; encoders that are trained alike share a row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for amount in AMOUNTS:
        for encoder in ENCODERS:
            rows.setdefault(_row(plan(encoder, amount)), []).append(f"`{encoder}_{amount}`")
    lines = [
        "| YAML | values of fairseq's | updates | lr | heads alone | masks | LayerDrop | batch |",
        "|---|---|---|---|---|---|---|---|",
        *(f"| {', '.join(names)} | {' | '.join(cells)} |" for cells, names in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def _row(chosen: Plan) -> tuple[str, ...]:
    values = chosen.values()
    updates, frozen = values["optimization.max_update"], values["model.freeze_finetune_updates"]
    gpus, (repeat,) = values["distributed_training.distributed_world_size"], values["optimization.update_freq"]
    return (
        f"`{chosen.source.replace('config/finetuning/', '').replace('config/finetune/', '')}`",
        f"{updates // 1000}k",
        f"{values['optimization.lr'][0]:.0e}".replace("e-0", "e-"),
        f"{frozen // 1000}k ({_percent(frozen / updates)})" if frozen else "0",
        f"{values['model.mask_prob']}, {values['model.mask_channel_prob']}",
        f"{values['model.layerdrop']}",
        f"{gpus} x {repeat} x {values['dataset.max_tokens'] / 1e6:g}M",
    )


def files() -> dict[Path, str]:
    """All that is written: path -> text.

    Raises:
        UserError: README.md lacks the two marks between which the table stands.
    """
    readme = HERE / "README.md"
    before, begin, rest = readme.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise UserError(f"{readme} has no table to replace: it must stand between {_BEGIN.strip()} and {_END.strip()}")
    folder = HERE / "finetune"
    texts = {folder / f"{name}_{hours}.yaml": render(name, hours) for name in ENCODERS for hours in AMOUNTS}
    mini = (folder / "hubert_mini.yaml").read_text(encoding="utf-8")
    texts |= {folder / f"hubert_mini_{name}.yaml": render_baseline(name, mini) for name in BASELINES}
    return {**texts, readme: f"{before}{begin}{table()}{end}{after}"}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file would change")
    check = parser.parse_args().check
    stale = [path for path, text in files().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if check and stale:
        names = ", ".join(str(path.relative_to(HERE)) for path in stale)
        raise UserError(f"not as config/generate.py writes them: {names}; run python config/generate.py")
    for path in stale:
        with replacing(path) as beside:
            beside.write_text(files()[path], encoding="utf-8")
    print(f"{len(stale)} of {len(files())} files written" if stale else "all files are as they should be")


if __name__ == "__main__":
    sys.exit(run_command("generate", main))
