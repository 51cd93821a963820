"""Malicious and damaged files: each is refused in a sentence, before anything large is built."""

import argparse
import io
import pickle
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from fairseq_skd.encoders import unpickling
from fairseq_skd.encoders.checkpoint import load_checkpoint, load_pretrained, plain_config
from fairseq_skd.errors import UserError
from tests.builders import model_config, write_pretrained
from tests.encoders.checkpoints import MODEL, TASK, Harmful, refusal, save
from tests.encoders.test_untrusted import State

pytestmark = pytest.mark.faults

# ---- interpolations (X2, X18)

SECRET = "the-secret"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", SECRET)


@pytest.mark.parametrize("node", [False, True])
@pytest.mark.parametrize("style", ["cfg", "args"])
def test_the_environment_is_not_read(tmp_path: Path, style: str, node: bool) -> None:
    """X2, X18: the variable's value once appeared in the log and in every checkpoint."""
    text = "${oc.env:SECRET_TOKEN}"
    if style == "cfg":
        cfg: Any = {
            "model": {**MODEL, "extractor_mode": text, "other": text},
            "task": TASK,
            "common": {"a": [text, "b"]},
        }
        path = save(tmp_path / "c.pt", cfg=OmegaConf.create(cfg) if node else cfg)
        assert load_checkpoint(path)["cfg"]["common"] == {"a": ["b"]}
        assert "other" not in load_checkpoint(path)["cfg"]["model"]
    else:
        values: Any = {**MODEL, "arch": "hubert", "extractor_mode": text, "other": text}
        path = save(
            tmp_path / "c.pt", args=argparse.Namespace(**values, nested=OmegaConf.create(values) if node else {})
        )
        assert not hasattr(load_checkpoint(path)["args"], "other")
    state = load_checkpoint(path)
    assert SECRET not in repr(state)
    key = "model.extractor_mode" if style == "cfg" else "extractor_mode"
    assert refusal(path) == (
        f"model.w2v_path={path}: {key}='{text}' cannot be resolved, only ${{section.key}} with a value is allowed in a "
        "checkpoint: replace it with the value"
    )


@pytest.mark.parametrize("key", ["conv_feature_layers", "activation_fn", "layer_type", "attn_type", "layer_norm_first"])
def test_no_architecture_string_reaches_a_configuration(tmp_path: Path, key: str) -> None:
    """X2: they enter the root configuration through w2v_args, where omegaconf resolves them."""
    for text in ("${oc.env:SECRET_TOKEN}", "x${oc.env:SECRET_TOKEN}", "\\${oc.env:SECRET_TOKEN}", "evil"):
        sentence = refusal(save(tmp_path / "c.pt", cfg={"model": {**MODEL, key: text}, "task": TASK}))
        assert key in sentence
        assert SECRET not in sentence


def test_plain_interpolations_are_resolved_within_the_file() -> None:
    cfg = {
        "a": {"value": 3, "hop": "${b.hop}", "list": "${b.list}", "section": "${b}", "loop": "${a.loop}"},
        "b": {"hop": "${a.value}", "list": [1, "x"], "missing": "???", "nowhere": "${c.d}", "part": "n-${a.value}"},
    }
    plain = plain_config(cfg)
    assert plain is not None
    assert plain.values == {"a": {"value": 3, "hop": 3, "list": [1, "x"]}, "b": {"hop": 3, "list": [1, "x"]}}
    assert plain.left_out == {
        "a.section": "${b}",
        "a.loop": "${a.loop}",
        "b.nowhere": "${c.d}",
        "b.part": "n-${a.value}",
    }


def test_a_small_configuration_that_unfolds_to_a_huge_one(tmp_path: Path) -> None:
    laughs: Any = ["ha"]
    for _ in range(25):
        laughs = [laughs, laughs]
    start = time.monotonic()
    sentence = refusal(save(tmp_path / "c.pt", cfg={"model": MODEL, "x": laughs}))
    assert "its configuration has more than 50,000 values or 32 levels" in sentence
    assert time.monotonic() - start < 5


# ---- sizes (X11)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder_layers": 10**9}, "encoder_layers=1000000000 is above 200, more than any encoder has"),
        ({"encoder_embed_dim": 10**6}, "encoder_embed_dim=1000000 is above 16,384, more than any encoder has"),
        ({"required_seq_len_multiple": 0}, "required_seq_len_multiple=0 is not a positive integer"),
        ({"required_seq_len_multiple": -2}, "required_seq_len_multiple=-2 is not a positive integer"),
        ({"crop_seq_to_multiple": "2"}, "crop_seq_to_multiple='2' is not a positive integer"),
        ({"pos_conv_depth": 10**6}, "pos_conv_depth=1000000 is above 100"),
        ({"depthwise_conv_kernel_size": 30}, "depthwise_conv_kernel_size=30 is even"),
        ({"conv_feature_layers": f"[({10**20}, 10, 5)]"}, "has a number above 20,000, more than any encoder has"),
        ({"layer_norm_first": 1}, "layer_norm_first=1 is neither true nor false"),
        ({"conv_bias": "yes"}, "conv_bias='yes' is neither true nor false"),
        ({"attn_type": "evil"}, "attn_type='evil' is unknown"),
        ({"activation_fn": ["gelu"]}, "activation_fn=['gelu'] is unknown"),
        ({"encoder_layers": 200, "encoder_embed_dim": 16384, "conv_pos_groups": 16}, "200 layers of 16,384"),
    ],
)
def test_declared_sizes_are_bounded(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = save(tmp_path / "c.pt", cfg={"model": {**MODEL, **changes}, "task": TASK})
    start = time.monotonic()
    sentence = refusal(path)
    assert time.monotonic() - start < 1
    if words.startswith("200 layers"):
        words = "its configuration describes an encoder with at least 215,"
    assert words in sentence


def test_an_encoder_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    path = write_pretrained(tmp_path / "c.pt", encoder_layers=2)
    state = torch.load(path, weights_only=True)
    numbers = sum(tensor.numel() for tensor in state["model"].values())
    state["cfg"]["model"]["encoder_layers"] = 50
    torch.save(state, path)
    sentence = refusal(path)
    assert f"{path} is damaged: its configuration" in sentence
    assert f"but the file holds {numbers:,} numbers" in sentence


def test_the_largest_published_encoders_are_within_the_limits() -> None:
    """XLS-R 2B has 48 layers of 1,920, HuBERT xlarge 48 of 1,280; conformer kernels have 31."""
    from fairseq_skd.encoders.pretrained import PretrainedEncoder

    model = {**MODEL, "encoder_layers": 48, "encoder_embed_dim": 1920, "encoder_ffn_embed_dim": 7680, "conv_pos": 128}
    model.update(encoder_attention_heads=16, conv_pos_groups=16, conv_feature_layers="[(512,10,5)] + [(512,3,2)] * 4")
    encoder = PretrainedEncoder.from_w2v_args({"model": model})
    encoder.check_size({"a": torch.empty(2_200_000_000, device="meta")})


# ---- containers (X11)


def rewritten(path: Path, kind: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    """Rewrite an archive with members added or replaced; ``data_0`` stands for ``data/0``."""
    source = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    folder = source.namelist()[0].partition("/")[0]
    replaced = {f"{folder}/{name.replace('_', '/')}": content for name, content in members.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name in source.namelist():
            archive.writestr(name, replaced.pop(name, source.read(name)), kind)
        for name, content in replaced.items():
            archive.writestr(name, content, kind)
    return path


def test_a_file_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    """X11: 3 MB once became 3 GB in memory."""
    path = rewritten(save(tmp_path / "c.pt", cfg={"model": MODEL}), zipfile.ZIP_DEFLATED, data_7=bytes(10**8))
    assert path.stat().st_size < 200_000
    assert "is compressed, but torch.save never compresses" in refusal(path)


def _entries(content: bytes, archive: zipfile.ZipFile) -> list[int]:
    """Find the offsets of the entries in an archive's directory."""
    places = [archive.start_dir]
    for _ in archive.infolist()[1:]:
        place = places[-1]
        places.append(
            place + 46 + sum(int.from_bytes(content[place + at : place + at + 2], "little") for at in (28, 30, 32))
        )
    return places


def test_members_that_overlap(tmp_path: Path) -> None:
    path = save(tmp_path / "c.pt", model={"a": torch.ones(5000)}, cfg={"model": MODEL})
    content = bytearray(path.read_bytes())
    archive = zipfile.ZipFile(io.BytesIO(content))
    member = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
    for entry, info in zip(_entries(content, archive), archive.infolist(), strict=True):
        if info.filename != member.filename:  # each entry of the directory claims to be the large member
            content[entry + 20 : entry + 28] = 2 * member.file_size.to_bytes(4, "little")
    path.write_bytes(content)
    assert "its members overlap: together they are larger than the file" in refusal(path)


@pytest.mark.parametrize("content", [b"\x80\x02N.", b"\x80\x02K\x01." + b"N" * (9 << 20)])
def test_a_pickle_of_another_size(tmp_path: Path, content: bytes) -> None:
    path = save(tmp_path / "c.pt", cfg={"model": MODEL})
    source = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    name = next(name for name in source.namelist() if name.endswith("data.pkl"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
    sentence = refusal(path)
    assert ("more than 8,388,608" if len(content) > 9 else "holds no 'model' dict") in sentence


VIEWS = {
    "beyond": (0, (10**6,), (1,)),
    "stride": (0, (2, 3), (100, 1)),
    "offset": (2, (3,), (1,)),
    "negative": (-1, (2,), (1,)),
    "repeated": (0, (10**12,), (0,)),
    "huge": (0, (2**62, 2**62), (1, 1)),
    "not a size": (0, "abc", (1,)),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("view", VIEWS)
def test_a_tensor_stays_in_its_storage(tmp_path: Path, view: str, legacy: bool) -> None:
    """torch would extend the storage with whatever its memory held before."""
    storage = torch.tensor([1.0, 2.0, 3.0]).storage()
    offset, size, stride = VIEWS[view]
    tensor = Harmful(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())
    sentence = refusal(save(tmp_path / "c.pt", legacy, model={"a": tensor}, cfg={"model": MODEL}))
    words = "of an unknown form" if view in ("negative", "not a size") else "exceeds or repeats its storage of 3"
    assert words in sentence


@pytest.mark.parametrize("legacy", [False, True])
def test_views_within_their_storage_load(tmp_path: Path, legacy: bool) -> None:
    base = torch.arange(12.0)
    model = {
        "view": base.view(3, 4).t(),
        "part": base[3:7],
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "flags": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "long": torch.tensor([2**62, -1]),
    }
    loaded = load_checkpoint(save(tmp_path / "c.pt", legacy, model=model, cfg={"model": MODEL}))["model"]
    for name, tensor in model.items():
        assert torch.equal(loaded[name], tensor), name
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
    assert loaded["view"].untyped_storage().data_ptr() == loaded["part"].untyped_storage().data_ptr()


@pytest.mark.parametrize("where", ["data/0", "data.pkl"])
def test_a_changed_byte_is_detected(tmp_path: Path, where: str) -> None:
    """torch reads a changed weight silently."""
    path = save(tmp_path / "c.pt", model={"a": torch.arange(1000.0)}, cfg={"model": MODEL})
    content = bytearray(path.read_bytes())
    member = next(info for info in zipfile.ZipFile(path).infolist() if info.filename.endswith(where))
    place = content.index(member.filename.encode(), member.header_offset) + 64 + 100
    content[place] ^= 1
    path.write_bytes(content)
    if where == "data/0":
        torch.load(path, weights_only=True)
    assert "cannot be read, it is truncated or not a PyTorch file" in refusal(path)


def test_a_file_without_checksums_loads(tmp_path: Path) -> None:
    """As with torch.serialization.set_crc32_options(False), which older torch does not have."""
    path = save(tmp_path / "c.pt", model={"a": torch.arange(3.0)}, cfg={"model": MODEL})
    content = bytearray(path.read_bytes())
    archive = zipfile.ZipFile(io.BytesIO(content))
    for entry in _entries(content, archive):
        content[entry + 16 : entry + 20] = bytes(4)
    path.write_bytes(content)
    assert all(member.CRC == 0 for member in zipfile.ZipFile(path).infolist())
    assert torch.equal(load_checkpoint(path)["model"]["a"], torch.arange(3.0))


# ---- pickles


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (State(argparse.Namespace, (), {"a": 1}), "is not a PyTorch file, or its pickle holds something other"),
        (10**60, "it holds an integer of 26 bytes"),
        (Harmful(torch.Tensor, 10), "it holds torch.Tensor, which is not on the allow-list"),
        (Harmful(bytearray, 10**12), "it holds builtins.bytearray, which is not on the allow-list"),
        ({"__dict__": Harmful(getattr, "a", "b")}, "it holds builtins.getattr, which is not on the allow-list"),
    ],
)
def test_content_that_no_checkpoint_holds(tmp_path: Path, held: Any, words: str) -> None:
    assert words in refusal(save(tmp_path / "c.pt", cfg={"model": MODEL}, extra_state=held))


def test_a_device_is_ignored(tmp_path: Path) -> None:
    """torch's own weights-only reader accepts it; ours once refused the file."""
    state = load_checkpoint(save(tmp_path / "c.pt", cfg={"model": {**MODEL, "device": torch.device("cuda:1")}}))
    assert state["cfg"]["model"] == MODEL


def test_a_damaged_dictionary(tmp_path: Path) -> None:
    from fairseq.data import Dictionary

    for name, value in (("symbols", "abc"), ("count", [1]), ("eos_index", 99), ("bos_word", 3), ("nspecial", -1)):
        dictionary = Dictionary()
        setattr(dictionary, name, value)
        path = save(tmp_path / "c.pt", cfg={"model": MODEL}, task_state={"target_dictionary": dictionary})
        assert "its dictionary is damaged" in refusal(path)


@pytest.mark.slow
def test_one_value_copied_a_thousand_times(tmp_path: Path) -> None:
    long = list(range(100_000))
    copies = [Harmful(set, long) for _ in range(1000)]
    assert "it copies its contents over and over" in refusal(save(tmp_path / "c.pt", cfg={"model": MODEL}, x=copies))


def crafted(tmp_path: Path, pickled: bytes) -> Path:
    """Save an archive with the given pickle."""
    return rewritten(save(tmp_path / "c.pt", cfg={"model": MODEL}), **{"data.pkl": pickled})


NESTED = b")" + b"\x85" * 3_000_000  # ((((...),),),)
LAUGHS = b")q\x00" + b"".join(b"(" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"tq" + bytes([i + 1]) for i in range(40))
COLLIDING = b"".join(b"\x8a\x0c" + (k * (2**61 - 1)).to_bytes(12, "little") + b"N" for k in range(1, 100_000))


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02}" + NESTED + b"Ns.",
        b"\x80\x02}(" + COLLIDING + b"u.",
        b"\x80\x04\x8f(" + LAUGHS + b"\x90.",
        b"\x80\x02cbuiltins\nset\n]" + NESTED + b"a\x85R.",
        b"\x80\x02ccollections\nOrderedDict\n]]" + NESTED + b"aNaa\x85R.",
    ],
    ids=["nested", "colliding", "laughs", "set", "ordered"],
)
@pytest.mark.slow
def test_keys_that_python_cannot_hash(tmp_path: Path, pickled: bytes) -> None:
    """X1, X11: hashing once crashed (nested), took forever (laughs) or a minute (colliding)."""
    assert "it holds a key that is neither text nor a number of usual size" in refusal(crafted(tmp_path, pickled))


def test_a_list_of_storages_that_unfolds_to_a_huge_one(tmp_path: Path) -> None:
    """It was once converted to text, to compare it with the storages."""
    laughs: Any = ["ha"]
    for _ in range(40):
        laughs = [laughs, laughs]
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = (0x1950A86A20F9469CFC6C, 1001, machine, {"model": {}}, laughs)
    path = tmp_path / "c.pt"
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in parts))
    assert "its list of storages does not match its pickle" in refusal(path)


def test_keys_and_texts_of_a_configuration_are_bounded(tmp_path: Path) -> None:
    """X11: a key of 7 MB was repeated before 3,000 keys, a text 49,000 times in one message."""
    long = {"k" * 7_000_000: {f"k{i}": "${x" for i in range(3000)}}
    assert "a key of 7,000,000 characters" in refusal(save(tmp_path / "c.pt", cfg={"model": MODEL, "x": long}))
    name = ["x" * 20_000] * 49_000
    assert "characters, 2,0" in refusal(save(tmp_path / "c.pt", cfg={"model": {**MODEL, "_name": name}}))


@pytest.mark.parametrize(
    "changes",
    [
        {"cfg": {"model": {**MODEL, "_name": "a\x1b[2J\nb"}}},
        {"cfg": {"model": {**MODEL, "extractor_mode": "a\x1b[2J"}}},
        {"cfg": {"model": {**MODEL, "conv_feature_layers": "a\x1b[2J"}}},
        {"cfg": {"model": {**MODEL, "_name": "hubert", "extractor_mode": ["${\x1b[2J\n"]}}},
        {"model": {"a\x1b[2J\n": torch.zeros(1)}},
    ],
)
def test_no_message_controls_the_terminal(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Text from the file once cleared the screen, or looked like a separate line."""
    assert refusal(save(tmp_path / "c.pt", **changes)).isprintable()


def test_no_name_in_a_file_controls_the_terminal(tmp_path: Path) -> None:
    assert "os\\x1b[2J.system" in refusal(crafted(tmp_path, b"\x80\x02cos\x1b[2J\nsystem\n."))
    archive = tmp_path / "d.pt"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("a/\x1b[2J\ndata.pkl", b"x" * 100)
    assert "its member a/\\x1b[2J data.pkl is compressed" in refusal(archive)


def test_the_unpickler_knows_no_other_steps() -> None:
    """torch.save writes no instances by name, extension codes, buffers or text persistent names."""
    known = set(unpickling.Unpickler.dispatch)
    for step in (pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT4, pickle.PERSID, pickle.NEWOBJ_EX, pickle.DUP):
        assert step[0] not in known


def test_the_table_has_only_our_functions() -> None:
    """Only functions of this module, and the scalar of compat, are called."""
    for name, function in unpickling._CALLS.items():
        assert function.__module__ in (
            unpickling.__name__,
            "numpy",
            "numpy.core.multiarray",
            "numpy._core.multiarray",
        ), name


@pytest.mark.parametrize("name", ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD"])
def test_fairseqs_reader_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """X4: with the first variable, fairseq once executed the file."""
    import os

    from fairseq import checkpoint_utils

    for other in ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "1")
    path = save(tmp_path / "c.pt", cfg={"model": {"_name": "lstm"}}, x=Harmful(os.mkdir, str(tmp_path / "made")))
    with pytest.raises(UserError, match=r"it holds posix\.mkdir, which is not on the allow-list"):
        checkpoint_utils.load_checkpoint_to_cpu(str(path))
    assert not (tmp_path / "made").exists()
    assert os.environ[name] == "1"
    model = model_config(write_pretrained(tmp_path / "p.pt", encoder_layers=1))
    assert load_pretrained(model.w2v_path).depth == 1
    state = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "p.pt"))  # another model: read by fairseq
    assert state["cfg"].model._name == "hubert"
