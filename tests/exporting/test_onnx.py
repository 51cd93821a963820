"""An exported ONNX folder: its files, its decoder without torch, and the folder as a recognizer."""

import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import soundfile
import torch
from fairseq.data import Dictionary
from onnx import TensorProto

import fairseq_skd
from fairseq_skd import recognizer
from fairseq_skd.errors import UserError
from fairseq_skd.exporting import onnx as onnx_format
from tests.decoding.checkpoints import write_fine_tuned
from tests.goldens import cases

pytest.importorskip("onnxruntime")

AUDIO = sorted(str(path) for path in (cases.HERE / "corpus").glob("*.flac"))
CHECKPOINT = cases.HERE / "hubert.pt"
# Runs a script in a Python that refuses torch and fairseq.
RUN = """\
import runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "fairseq", "fairseq_skd"):
            raise ImportError(name + " is refused")

sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def rec():
    return recognizer.load(CHECKPOINT, exits=(cases.STUDENT,), device="cpu")


@pytest.fixture(scope="module")
def exported(rec, tmp_path_factory):
    """A folder with both models; tests that change it take ``folder``."""
    folder = tmp_path_factory.mktemp("onnx")
    onnx_format.write(rec, folder, int8=True)
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def decode(folder, *audio):
    command = [sys.executable, "-I", "-c", RUN, str(folder / "decode.py"), *audio]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env={"PYTHONUTF8": "1"})


@pytest.mark.slow
def test_files(exported, rec):
    names = {"model.onnx", "model.int8.onnx", "tokens.txt", "config.json", "decode.py"}
    assert {path.name for path in exported.iterdir()} == names
    tokens = (exported / "tokens.txt").read_text().splitlines()
    assert tokens[:6] == ["<s> 0", "<pad> 1", "</s> 2", "<unk> 3", "| 4", "E 5"] and len(tokens) == 32
    config = json.loads((exported / "config.json").read_text())
    assert config["layers"] == cases.STUDENT and config["sample_rate"] == 16000 and config["shortest"] == 400
    assert config["kernels"] == [10, 3, 3, 3, 3, 2, 2] and config["frame_seconds"] == 0.02
    assert config["parameters"] == rec.parameters
    graph = onnx.load(exported / "model.onnx")
    onnx.checker.check_model(graph)
    assert [(one.domain, one.version) for one in graph.opset_import] == [("", onnx_format.OPSET)]
    assert len((exported / "decode.py").read_text().splitlines()) <= 60


@pytest.mark.slow
def test_only_products_with_weights_are_in_8_bits(exported):
    kinds = [node.op_type for node in onnx.load(exported / "model.int8.onnx").graph.node]
    # per layer query, key, value, output and two of the feed-forward; projection and head
    assert kinds.count("MatMulInteger") == 6 * cases.STUDENT + 2
    assert kinds.count("Conv") == 8 and "ConvInteger" not in kinds


@pytest.mark.slow
def test_int8_gives_nearly_the_same_posteriors(exported, rec):
    ours = fairseq_skd.load(exported)
    assert ours.path.endswith("model.int8.onnx")
    (layer,) = rec.exits
    for audio in AUDIO:
        found = ours(*ours.batch([audio])).logits[layer].softmax(dim=-1)
        expected = rec(*rec.batch([audio])).logits[layer].softmax(dim=-1)
        assert (found - expected).abs().mean() < 0.002  # a posterior has 32 values; their mean is 0.03


def texts(rec, **options):
    return [transcript.text for transcript in rec.transcribe(AUDIO, **options)]


@pytest.mark.slow
def test_decodes_without_torch(folder, rec):
    (folder / "model.int8.onnx").unlink()
    done = decode(folder, *AUDIO)
    assert done.returncode == 0, done.stderr
    expected = texts(rec)
    assert done.stdout.splitlines() == [f"{path}\t{text}" for path, text in zip(AUDIO, expected, strict=True)]


@pytest.mark.slow
def test_decoding_refuses_another_rate(exported, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    done = decode(exported, str(tmp_path / "a.wav"))
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"{tmp_path / 'a.wav'} has 8000 samples at 8000 Hz: the model needs 400 or more, at 16000 Hz"
    )


@pytest.mark.slow
def test_word_pieces(tmp_path):
    path = write_fine_tuned(tmp_path / "checkpoint.pt")
    state = torch.load(path, weights_only=False)
    pieces = Dictionary()
    for number in range(14):
        pieces.add_symbol(f"\u2581W{number}")
        pieces.add_symbol(f"é{number}")
    state["task_state"] = {"target_dictionary": pieces}
    state["cfg"]["criterion"] = {"post_process": "sentencepiece"}
    torch.save(state, path)
    rec = recognizer.load(path, exits=(2,), device="cpu")
    onnx_format.write(rec, tmp_path)
    expected = texts(rec)
    assert any(" " in text for text in expected)
    assert texts(fairseq_skd.load(tmp_path / "model.onnx")) == expected
    done = decode(tmp_path, *AUDIO)
    assert done.stdout.splitlines() == [f"{path}\t{text}" for path, text in zip(AUDIO, expected, strict=True)]


@pytest.mark.slow
def test_units_that_the_decoder_cannot_join(rec, tmp_path, monkeypatch):
    monkeypatch.setattr(rec, "_post_process", "silence")
    with pytest.raises(UserError, match=r"its criterion.post_process=silence cannot be exported to ONNX: only letter,"):
        onnx_format.write(rec, tmp_path)


@pytest.mark.slow
def test_a_model_above_2_gb(rec, tmp_path, monkeypatch):
    monkeypatch.setattr(rec, "parameters", 10**9)
    with pytest.raises(UserError, match=r"has 1,000,000,000 parameters at this exit: an ONNX file holds at most 2 GB"):
        onnx_format.write(rec, tmp_path)


@pytest.mark.slow
def test_the_folder_is_a_recognizer(folder, rec):
    (folder / "model.int8.onnx").unlink()
    ours = fairseq_skd.load(folder)
    assert texts(ours, batch_size=3) == texts(rec)
    assert texts(ours, exit_layer=cases.STUDENT) == texts(rec)
    assert (ours.symbols, ours.frame_grid, ours.parameters) == (rec.symbols, rec.frame_grid, rec.parameters)
    assert ours.frame_seconds == rec.frame_seconds and ours.waveforms.shortest == rec.waveforms.shortest
    out = ours(*ours.batch(AUDIO))
    out.check_finite()
    assert torch.equal(out.lengths, rec(*rec.batch(AUDIO)).lengths)
    assert fairseq_skd.load(folder, exits=(0,)).exits == (cases.STUDENT,)
    with pytest.raises(UserError, match="the checkpoint has no exit at layer 4: use 0 for the full model of 2 layers"):
        fairseq_skd.load(folder, exits=(4,))
    with pytest.raises(UserError, match="runs on device=cpu with dtype=torch.float32 only"):
        fairseq_skd.load(folder, dtype=torch.bfloat16)


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_rate": "16000"}, "config.json: sample_rate=16000 is not an integer from 1 to 1,000,000"),
        ({"layers": True}, "config.json: layers=True is not an integer from 1 to 200"),
        ({"multiple": 0}, "config.json: multiple=0 is not an integer from 1 to 1,000"),
        ({"kernels": [10, 3.5]}, r"config.json: kernels=\[10, 3.5\] holds a value that is not an integer from 1"),
        ({"kernels": [2] * 101}, "is not a list of 1 to 100 integers"),
        ({"strides": [5]}, "config.json: kernels and strides differ in number"),
        ({"post_process": ["letter"]}, "is not text"),
        ({"version": 2}, "config.json was not written by this version of fairseq_skd"),
    ],
)
def test_hostile_configurations(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(UserError, match=message):
        fairseq_skd.load(folder)


@pytest.mark.slow
def test_damaged_folders(folder):
    tokens = (folder / "tokens.txt").read_text()
    for text, message in (
        (tokens.replace("E 5", "| 5"), r"tokens.txt line 6 is '\| 5': 'symbol 5' with a new symbol is expected"),
        (tokens.replace("E 5", "E 7"), "tokens.txt line 6 is 'E 7'"),
        (tokens.replace("<s> 0", "<blk> 0"), "tokens.txt line 1 is '<blk> 0'"),
        (tokens.replace("E 5", "\x1b[2J 5"), r"line 6 is '\\x1b\[2J 5': 'symbol 5'"),
        (tokens.replace("E 5", " 5"), "tokens.txt line 6 is '5': 'symbol 5'"),
        (tokens + "new 32\n", r"is damaged: its log_probs have the shape \['N', 'T', 32\], but tokens.txt has 33"),
    ):
        (folder / "tokens.txt").write_text(text)
        with pytest.raises(UserError, match=message):
            fairseq_skd.load(folder)
    (folder / "tokens.txt").write_text(tokens)
    (folder / "model.int8.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="model.int8.onnx cannot be read"):
        fairseq_skd.load(folder)
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="config.json is damaged: it is not JSON"):
        fairseq_skd.load(folder)
    (folder / "config.json").write_text(" " * 1_000_001)
    with pytest.raises(UserError, match="config.json is damaged: it has more than 1,000,000 bytes"):
        fairseq_skd.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="config.json is missing: give a folder of fairseq_skd.export --format onnx"):
        fairseq_skd.load(folder)


@pytest.mark.slow
@pytest.mark.faults
def test_a_graph_that_names_other_files(folder, tmp_path):
    """ONNX Runtime 1.23 would read them, wherever they are."""
    (folder / "model.int8.onnx").unlink()
    graph = onnx.load(folder / "model.onnx")
    weight = graph.graph.initializer[0]
    (tmp_path / "secret").write_bytes(bytes(len(weight.raw_data)))
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../secret")
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(UserError, match="model.onnx keeps weights in further files, which are not read"):
        fairseq_skd.load(folder)


@pytest.mark.faults
def test_a_device_in_place_of_a_file(tmp_path):
    """It has no size and no end; reading it took all memory."""
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="config.json is missing"):
        fairseq_skd.load(tmp_path)


def hostile(path, log_probs, frame_lengths):
    """Write a graph with the right inputs and outputs that always gives these values."""
    outputs = {"log_probs": log_probs, "frame_lengths": frame_lengths}
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in outputs.items()}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", [f"{name}_"], [name]) for name in outputs],
        "graph",
        [
            onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "samples"]),
            onnx.helper.make_tensor_value_info("lengths", TensorProto.INT64, ["N"]),
        ],
        [
            onnx.helper.make_tensor_value_info(name, kinds[name], [None] * (value.ndim - 1) + [value.shape[-1]])
            for name, value in outputs.items()
        ],
        [onnx.numpy_helper.from_array(value, f"{name}_") for name, value in outputs.items()],
    )
    opsets = [onnx.helper.make_opsetid("", onnx_format.OPSET)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize(
    ("shape", "dtype", "lengths", "message"),
    [
        ((0, 49, 32), "f4", [], "the shape (0, 49, 32)"),
        ((1, 3, 32), "f4", [49], "the shape (1, 3, 32)"),
        ((1, 49, 32), "f4", [10**12], "its frame_lengths are [1000000000000]"),
        ((1, 49, 32), "f4", [-2], "its frame_lengths are [-2]"),
        ((1, 49, 32), "i8", [49], "'log_probs': 'tensor(int64)'"),
    ],
)
def test_graphs_that_lie(folder, shape, dtype, lengths, message):
    """They ended in a traceback, or in a text of other frames."""
    (folder / "model.int8.onnx").unlink()
    hostile(folder / "model.onnx", np.zeros(shape, dtype), np.array(lengths, np.int64))
    with pytest.raises(UserError) as refused:
        fairseq_skd.load(folder).transcribe([np.zeros(16000, np.float32)])
    assert message in str(refused.value)


@pytest.mark.slow
def test_audio_without_a_frame_after_the_cut(tmp_path):
    """An encoder that crops to three frames needs three; torch raised an error of its own."""
    path = write_fine_tuned(tmp_path / "checkpoint.pt", "wav2vec2", crop_seq_to_multiple=3)
    rec = recognizer.load(path, exits=(2,), device="cpu")
    onnx_format.write(rec, tmp_path)
    for one in (rec, fairseq_skd.load(tmp_path / "model.onnx")):
        assert one.batch([np.zeros(1040, np.float32)])[0].shape == (1, 1040)
        assert one(*one.batch([np.zeros(1040, np.float32)])).lengths.tolist() == [3]
        with pytest.raises(UserError, match="it has 1039 samples, the model needs 1040"):
            one.transcribe([np.zeros(1039, np.float32)])
