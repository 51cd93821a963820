import shlex
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import fairseq_skd
from fairseq_skd.demo.plan import Layout, demo_steps, find_configs, find_trainer
from fairseq_skd.errors import UserError

CONFIGS = Path(__file__).parents[2] / "config"


@pytest.fixture
def steps(tmp_path):
    return demo_steps(Layout(tmp_path / "demo out"), CONFIGS, Path("/venv/bin/fairseq-hydra-train"))


def overrides_of(step):
    return dict(argument.split("=", 1) for argument in step.command if "=" in argument)


def test_each_step_writes_something_of_its_own(steps):
    assert len({step.name for step in steps}) == len(steps)
    assert len({step.output for step in steps}) == len(steps)
    for step in steps:
        for other in steps:
            assert step is other or step.output not in other.output.parents


def test_shown_commands_are_the_commands_that_run(steps):
    programs = {"python": sys.executable, "fairseq-hydra-train": "/venv/bin/fairseq-hydra-train"}
    for step in steps:
        program, *arguments = shlex.split(step.shown())
        assert (programs[program], *arguments) == step.command


def test_training_goes_through_fairseq_with_our_user_dir(steps):
    for step in steps:
        if step.updates:
            assert step.command[0] == "/venv/bin/fairseq-hydra-train"
            assert overrides_of(step)["common.user_dir"] == str(Path(fairseq_skd.__file__).parent)
            assert overrides_of(step)["optimization.max_update"] == str(step.updates)
    assert [step.name for step in steps if step.updates] == ["pretrain", "finetune"]


def test_hydra_understands_the_overrides(steps):
    parser = OverridesParser.create()
    for step in steps:
        overrides = [argument for argument in step.command if "=" in argument]
        for override in parser.parse_overrides(overrides):
            assert override.key_or_group


def test_student_is_decoded_as_it_was_trained(steps):
    named = {step.name: overrides_of(step) for step in steps}
    assert named["finetune"]["model.student_layers"] == f"[{named['decode-student']['decoding.layer']}]"
    text = (CONFIGS / "pretrain" / "hubert_tiny.yaml").read_text()
    assert f"encoder_layers: {named['decode-teacher']['decoding.layer']}\n" in text


def test_configs_of_the_commands_exist(steps):
    for step in steps:
        if "--config-dir" in step.command:
            folder = step.command[step.command.index("--config-dir") + 1]
            name = step.command[step.command.index("--config-name") + 1]
            assert (Path(folder) / f"{name}.yaml").is_file()


def test_trainer_stands_beside_the_interpreter(tmp_path, monkeypatch):
    (tmp_path / "fairseq-hydra-train").touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert find_trainer() == tmp_path / "fairseq-hydra-train"


def test_trainer_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"fairseq-hydra-train is not beside .*: install fairseq"):
        find_trainer()


def test_configs_of_a_package_without_its_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(fairseq_skd, "__file__", str(tmp_path / "fairseq_skd" / "__init__.py"))
    with pytest.raises(UserError, match=r"config does not exist: run the demo from a checkout"):
        find_configs()
