"""What self-distillation is compared with: hubert_mini.yaml with some lines changed (method section 2).

generate.py writes config/finetune/hubert_mini_<baseline>.yaml from it. Arms of a comparison then differ in what is
compared and in nothing else.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fairseq_skd.errors import UserError


@dataclass(frozen=True)
class Baseline:
    """One thing to compare with.

    Attributes:
        title: what it is, for the head of the file.
        changes: group.key -> what stands after the colon, comment and further lines included; None takes the line out.
        command: overrides that it cannot do without.
    """

    title: str
    changes: Mapping[str, str | None]
    command: str = ""


_ALONE: dict[str, str | None] = {"checkpoint.best_checkpoint_metric": "wer", "model.student_layers": "[]"}
_PRUNED = {**_ALONE, "model.keep_layers": "6  # only the first so many layers of the encoder; 0: all"}


def _taught(title: str, method: str, temperature: str = "1.0") -> Baseline:
    criterion = (
        f"kd_ctc\n  method: {method}  # guide (Guide-CTC), softmax_l2, softmax_kl\n"
        "  teacher_path: ???  # fine-tuned checkpoint of model skd_ctc, absolute; it is run at its full depth\n"
        "  teacher_sha256: null  # written by the criterion: a resumed run needs the same file"
    )
    return Baseline(
        f"{title}: a separate, frozen teacher and a student of six layers.",
        {
            **_PRUNED,
            "criterion._name": criterion,
            "criterion.temperature": temperature,
            **dict.fromkeys(f"criterion.{key}" for key in ("schedule", "tau", "alpha", "stop_gradient")),
        },
        "criterion.teacher_path=/runs/ctc/checkpoint_best.pt",
    )


BASELINES = {
    "ctc": Baseline("Plain CTC fine-tuning of the full model.", _ALONE),
    "pruning": Baseline("Layer pruning: the encoder's first six layers, fine-tuned with CTC alone.", _PRUNED),
    "interctc": Baseline(
        "InterCTC (Lee & Watanabe 2021): CTC on both exits, 0.7 and 0.3 of the loss, nothing distilled.",
        {"criterion.schedule": "constant", "criterion.alpha": "0.3  # constant only", "criterion.kd_weight": "0.0"},
    ),
    "guide": _taught("Guide-CTC (Kurata & Audhkhasi 2019)", "guide", "1.0  # it has none: leave it at 1"),
    "softmax_l2": _taught("Softmax-level distillation (TutorNet), squared distance", "softmax_l2"),
    "softmax_kl": _taught("Softmax-level distillation, Kullback-Leibler divergence", "softmax_kl"),
}


def render_baseline(name: str, text: str) -> str:
    """The text of a baseline's YAML.

    Args:
        name: key of :data:`BASELINES`.
        text: of hubert_mini.yaml.

    Raises:
        UserError: hubert_mini.yaml lacks a key that has to change.
    """
    baseline = BASELINES[name]
    changes = dict(baseline.changes)
    lines, group = [], ""
    for line in text.partition("\ncommon:\n")[2].splitlines():
        group = found[1] if (found := re.fullmatch(r"(\w+):", line)) else group
        key = found[1] if (found := re.match(r"  (\w+):", line)) else ""
        if f"{group}.{key}" in changes:
            value = changes.pop(f"{group}.{key}")
            lines += [] if value is None else [f"  {key}: {value}"]
        else:
            lines.append(line)
    if changes:
        raise UserError(
            f"hubert_mini.yaml has no {min(changes)}, which baseline {name} changes: mend config/baselines.py"
        )
    return "\n".join((*_head(name, baseline), "common:", *lines)) + "\n"


def _head(name: str, baseline: Baseline) -> list[str]:
    needed = [f"#     {baseline.command}"] if baseline.command else []
    return [
        "# @package _group_",
        "",
        f"# {baseline.title}",
        "# Written by config/generate.py from hubert_mini.yaml, which is the same in all else: change those instead.",
        "#",
        f"#   fairseq-hydra-train --config-dir config/finetune --config-name hubert_mini_{name} \\",
        '#     common.user_dir="$(python -m fairseq_skd)" task.data=/abs/manifests model.w2v_path=/abs/hubert.pt'
        + " \\" * bool(needed),
        *needed,
        "",
    ]
