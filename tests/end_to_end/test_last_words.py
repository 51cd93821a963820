"""The last line of fairseq-hydra-train after a mistake of the user."""

import subprocess
import sys

import pytest
import soundfile

from tests.builders import write_pretrained
from tests.end_to_end.training import REPOSITORY, SMALL, corpus, train
from tests.end_to_end.workers import free_port

pytestmark = pytest.mark.faults


@pytest.mark.slow
def test_a_loader_worker_names_the_file(tmp_path):
    """The process that reads audio passes the message on as the text of a traceback."""
    data = corpus(tmp_path / "data")
    audio = data / "audio" / "train6.wav"
    wave, rate = soundfile.read(audio)
    soundfile.write(audio.with_suffix(".flac"), wave, rate)
    content = audio.with_suffix(".flac").read_bytes()
    audio.write_bytes(content[: len(content) // 2])  # its header is intact
    hubert = write_pretrained(tmp_path / "hubert.pt")
    overrides = [*SMALL, f"task.data={data}", f"model.w2v_path={hubert}", "dataset.num_workers=1"]
    result = train(tmp_path / "run", overrides)
    assert result.returncode == 1
    last = result.stdout.rstrip().splitlines()[-1]
    assert last.startswith(f"fairseq-hydra-train: audio file {audio} ")
    assert "Traceback" not in result.stdout


@pytest.mark.slow
def test_each_worker_of_torchrun_prints_one_line(tmp_path):
    data = corpus(tmp_path / "data")
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"),
        *("--no-python", "sh", "-c", 'exec "$@" distributed_training.distributed_rank=$RANK', "sh"),
        *(sys.executable, "-m", "fairseq_cli.hydra_train", "--config-dir", str(REPOSITORY / "config" / "finetune")),
        *("--config-name", "hubert_mini", f"common.user_dir={REPOSITORY / 'fairseq_skd'}", *SMALL),
        *(f"task.data={data}", f"model.w2v_path={tmp_path / 'none.pt'}", "distributed_training.ddp_backend=no_c10d"),
        *("distributed_training.distributed_world_size=2", "distributed_training.distributed_backend=gloo"),
        *("distributed_training.distributed_no_spawn=true", "distributed_training.distributed_init_method=env://"),
        f"hydra.run.dir={tmp_path}",
    ]
    result = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 1
    sentence = f"fairseq-hydra-train: model.w2v_path: checkpoint {tmp_path / 'none.pt'} does not exist"
    assert sentence in result.stdout.splitlines(), result.stdout  # the first one that fails ends the other
    assert "fairseq_skd.errors.UserError" not in result.stdout
