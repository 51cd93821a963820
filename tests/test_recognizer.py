"""A recognizer against the whole model, and against fairseq's reading of audio."""

import doctest
import inspect
import itertools
import json
import logging
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from fairseq.data import Dictionary
from fairseq.data.audio.hubert_dataset import HubertDataset
from fairseq.data.audio.raw_audio_dataset import FileAudioDataset
from fairseq.models.hubert.hubert import HubertConfig
from fairseq.trainer import Trainer
from omegaconf import OmegaConf
from torch import Tensor

import fairseq_skd
from fairseq_skd.encoders.convolutions import FrameGrid
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import file_hash
from fairseq_skd.files.waveforms import UnreadableAudioError, Waveforms
from fairseq_skd.models import SkdCtc
from fairseq_skd.models.config import SkdCtcConfig
from fairseq_skd.models.heads import NoExitError
from fairseq_skd.models.trained import open_trained
from fairseq_skd.recognizer import (
    DeviceMemoryError,
    FramesError,
    NotFiniteError,
    Output,
    Recognizer,
    SymbolsError,
    check_frames,
    check_symbols,
    load,
)
from tests.builders import CtcTask, letter_dictionary
from tests.decoding.checkpoints import write_fine_tuned
from tests.goldens import cases
from tests.models.models import LARGE

HUBERT, WAVLM = (cases.HERE / f"{kind}.pt" for kind in cases.KINDS)
EXPECTED = json.loads((cases.HERE / "expected.json").read_text())
AUDIO = sorted((cases.HERE / "corpus").glob("*.flac"))
KINDS = {
    "hubert": ("hubert", {}),
    "pre_ln": ("hubert", LARGE),
    "wav2vec2": ("wav2vec2", {}),
    "pre_ln_wavlm": ("wavlm", LARGE),
}
LAYERS, STUDENTS = 4, (1, 2)


@pytest.fixture(scope="module", params=KINDS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, changes = KINDS[request.param]
    return write_fine_tuned(tmp_path_factory.mktemp("tuned") / "tuned.pt", kind, STUDENTS, **changes)


def whole_model(path: Path) -> SkdCtc:
    """Build the model with all its heads, as a training does."""
    trained = open_trained(path)
    cfg = OmegaConf.merge(OmegaConf.structured(SkdCtcConfig), trained.config["model"])
    model = SkdCtc.build_model(cfg, CtcTask())
    model.load_state_dict(trained.weights, strict=True)
    return model.eval()


def noise(*seconds: float, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [0.1 * rng.standard_normal(int(16000 * duration)).astype(np.float32) for duration in seconds]


# ---- exits


@pytest.mark.slow
def test_any_exits_in_any_order_equal_the_whole_model(checkpoint: Path) -> None:
    whole = whole_model(checkpoint)
    every = load(checkpoint, device="cpu")
    assert (every.exits, every.depth) == ((LAYERS, *STUDENTS), LAYERS)
    source, padding_mask = every.batch(noise(0.9, 0.4, 0.62))
    with torch.no_grad():
        expected = whole(source, padding_mask)
    asked = [every.exits, (0, 2), (2, 0, 4, 2)]
    asked += [exits for size in (1, 2) for exits in itertools.permutations((4, 2, 1), size)]
    for exits in asked:
        rec = load(checkpoint, exits, "cpu")
        out = rec(source, padding_mask)
        assert rec.exits == tuple(out.logits) == tuple(dict.fromkeys(layer or LAYERS for layer in exits))
        assert torch.equal(out.lengths, expected["frame_lengths"])
        for layer, logits in out.logits.items():
            assert torch.equal(logits, expected["exit_logits"][layer]), (exits, layer)
            assert not logits.requires_grad


@pytest.mark.parametrize(("exits", "deepest"), [((1,), 1), ((2, 1), 2), ((2,), 2), ((0, 1), 4)])
@pytest.mark.slow
def test_layers_above_the_deepest_exit_are_neither_loaded_nor_computed(
    checkpoint: Path, exits: tuple[int, ...], deepest: int
) -> None:
    trained = open_trained(checkpoint)
    saved = {name: weight.numel() for name, weight in trained.weights.items()}
    rec = Recognizer(trained, exits, "cpu")
    assert trained.weights == {}

    def needed(name: str) -> bool:
        if ".encoder.layers." in name:
            return int(name.split(".encoder.layers.")[1].split(".")[0]) < deepest
        if name.startswith("student_heads."):
            return int(name.split(".")[1]) in exits
        full = name.startswith("w2v_encoder.proj.") or ("encoder.layer_norm." in name and is_pre_ln)
        return not full or 0 in exits

    is_pre_ln = bool(rec.model.w2v_encoder.w2v_model.encoder.layer_norm_first)
    kept = dict(rec.model.named_parameters())
    assert set(kept) == {name for name in saved if needed(name)}
    assert rec.parameters == sum(saved[name] for name in kept if not name.endswith("mask_emb"))
    layers = rec.model.w2v_encoder.w2v_model.encoder.layers
    ran: list[int] = []
    for count, layer in enumerate(layers, start=1):
        layer.register_forward_hook(lambda *_, count=count: ran.append(count))
    rec(*rec.batch(noise(0.5)))
    assert ran == list(range(1, deepest + 1)) and not rec.model.training


@pytest.mark.slow
def test_exits_that_do_not_exist(checkpoint: Path) -> None:
    for exits in ((3,), (0, 5), (-1,)):
        with pytest.raises(NoExitError, match=rf"no exit at layer {exits[-1]}: use 0 for the full .*\(1 or 2\)$"):
            load(checkpoint, exits)
    with pytest.raises(UserError, match="^exits is empty: give layer counts, 0 for the full model$"):
        load(checkpoint, ())
    rec = load(checkpoint, (0, 2), "cpu")
    with pytest.raises(UserError, match="^exit_layer=1 was not loaded: choose one of 4, 2$"):
        rec.transcribe(noise(0.5), exit_layer=1)


# ---- audio


@pytest.mark.parametrize("normalize", [False, True])
def test_audio_is_read_as_fairseq_reads_it(normalize: bool, tmp_path: Path) -> None:
    """Mono and stereo, lossy and lossless formats, and parts of an uncompressed zip file."""
    rng = np.random.default_rng(0)
    names = {"a.wav": ("PCM_16", 1), "b.flac": ("PCM_24", 1), "c.wav": ("FLOAT", 2), "d.flac": ("PCM_16", 2)}
    for name, (subtype, channels) in names.items():
        wave = 0.2 * rng.standard_normal((9000, channels)) + 0.1
        soundfile.write(tmp_path / name, wave.squeeze(), 16000, subtype=subtype)
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            archive.write(tmp_path / name, name)
        data = (tmp_path / "all.zip").read_bytes()
    pieces = [
        f"all.zip:{data.index((tmp_path / name).read_bytes())}:{(tmp_path / name).stat().st_size}" for name in names
    ]
    listed = [*names, *pieces]
    manifest = tmp_path / "test.tsv"
    manifest.write_text("".join(f"{line}\n" for line in (tmp_path, *(f"{name}\t9000" for name in listed))))
    waveforms = Waveforms(16000, normalize, 400)
    hubert: Any = HubertDataset(str(manifest), 16000, [], [], [], [], normalize=normalize)
    wav2vec: Any = FileAudioDataset(str(manifest), 16000, normalize=normalize)
    for place, name in enumerate(listed):
        found = waveforms.read(tmp_path / name)
        assert torch.equal(found, hubert.get_audio(place)), name
        assert torch.equal(found, wav2vec[place]["source"]), name
    assert torch.equal(waveforms.read(str(tmp_path / "a.wav")), waveforms.read(tmp_path / pieces[0]))


def test_a_batch_of_paths_and_arrays(tmp_path: Path) -> None:
    rec = load(write_fine_tuned(tmp_path / "tuned.pt", normalize=True), device="cpu")
    short, long = noise(0.3, 0.5)
    soundfile.write(tmp_path / "long.wav", long, 16000, subtype="FLOAT")
    source, padding_mask = rec.batch([short, tmp_path / "long.wav", torch.from_numpy(long), long.astype(np.float64)])
    assert source.shape == padding_mask.shape == (4, 8000) and source.dtype == torch.float32
    assert padding_mask.sum(dim=1).tolist() == [3200, 0, 0, 0] and bool(padding_mask[0, 4800:].all())
    assert not source[0, 4800:].any()
    expected = (short - short.mean(dtype=np.float64)) / np.sqrt(short.var(dtype=np.float64) + 1e-5)
    np.testing.assert_allclose(source[0, :4800], expected, atol=1e-6)
    assert torch.equal(source[1], source[2]) and torch.equal(source[1], source[3])


def test_audio_that_cannot_be_used(tmp_path: Path) -> None:
    rec = load(HUBERT, device="cpu")
    slow, text, archive = tmp_path / "slow.wav", tmp_path / "text.wav", tmp_path / "all.zip"
    soundfile.write(slow, noise(0.5)[0], 8000)
    text.write_text("no audio")
    archive.write_bytes(bytes(1000))
    nan = noise(0.5)[0]
    nan[7] = np.nan
    for audio, reason in {
        slow: "it is sampled at 8000 Hz, the model takes 16000 Hz: resample it",
        tmp_path / "gone.wav": "",
        text: "",
        f"{archive}:10": "",
        f"{archive}:10:500": "",
        f"{tmp_path}/gone.zip:0:7": "",
    }.items():
        with pytest.raises(UnreadableAudioError, match=rf"^audio file {audio} cannot be read: .*{reason}$") as caught:
            rec.batch([audio])
        assert caught.value.reason and "\n" not in caught.value.reason
    for array, sentence in [
        (nan[:399], "audio file given as an array cannot be read: it has 399 samples, the model needs 400"),
        (nan, "audio file given as an array cannot be read: it holds NaN or Inf: replace it, or leave it out"),
        (nan.reshape(2, -1), r"the shape \(2, 4000\) and holds float32: give \(samples,\), floating-point numbers"),
        (np.zeros(8000, np.int16), r"the shape \(8000,\) and holds int16: give \(samples,\), floating-point numbers"),
    ]:
        with pytest.raises(UserError, match=sentence):
            rec.transcribe([array])
    with pytest.raises(UserError, match="^a batch needs at least one audio file or array$"):
        rec.batch([])
    assert rec.transcribe([]) == []


# ---- texts


@pytest.mark.parametrize("path", [HUBERT, WAVLM])
@pytest.mark.slow
def test_transcribe_equals_the_decoding(path: Path) -> None:
    rec = load(path, (4, 2), "cpu")
    arrays = [soundfile.read(file)[0] for file in AUDIO]
    for layer in (4, 2):
        lines = EXPECTED[cases.case_name(path.stem, layer, "many", "viterbi")]["hypo.word"]
        by_place = sorted(lines, key=lambda line: int(line.rpartition("-")[2].rstrip(")")))
        expected = [line.rpartition("(")[0].strip() for line in by_place]
        assert any(expected)
        found = rec.transcribe(AUDIO, layer)
        assert list(map(str, found)) == [one.text for one in found] == expected
        assert list(map(str, rec.transcribe(arrays, layer, batch_size=3))) == expected
        assert list(map(str, rec.transcribe(AUDIO[::-1], layer, batch_size=1))) == expected[::-1]
    assert rec.transcribe(AUDIO[:2]) == rec.transcribe(AUDIO[:2], 4)


def test_attributes_of_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cases.HERE)
    rec = fairseq_skd.load("hubert.pt", device="cpu")
    assert (rec.path, rec.sha256) == (str(HUBERT), file_hash(HUBERT))
    assert (rec.sample_rate, rec.frame_seconds, rec.exits, rec.depth) == (16000, 0.02, (4, 2), 4)
    assert (rec.symbols, rec.post_process) == (letter_dictionary().symbols, "letter")
    assert (rec.frame_grid.kernels, rec.frame_grid.strides) == ((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    assert (rec.device, rec.dtype) == (torch.device("cpu"), torch.float32)
    assert not isinstance(rec, torch.nn.Module)


@pytest.mark.slow
def test_a_checkpoint_without_dictionary(tmp_path: Path) -> None:
    state = torch.load(HUBERT, weights_only=True)
    bare = tmp_path / "bare.pt"
    torch.save({**state, "task_state": {}}, bare)
    rec = load(bare, device="cpu")
    source, padding_mask = rec.batch(AUDIO[:2])
    expected = load(HUBERT, device="cpu")(source, padding_mask)
    assert torch.equal(rec(source, padding_mask).logits[4], expected.logits[4])
    for use in (lambda: rec.dictionary, lambda: rec.symbols, lambda: rec.transcribe(AUDIO[:1])):
        with pytest.raises(UserError, match=rf"^checkpoint {bare} holds no dictionary: use its logits only$"):
            use()


def test_a_dictionary_that_does_not_fit_the_heads(tmp_path: Path) -> None:
    """fairseq's dictionary returns <unk> for an index that it does not have."""
    state = torch.load(HUBERT, weights_only=True)
    state["task_state"]["target_dictionary"] = Dictionary()
    torch.save(state, tmp_path / "few.pt")
    with pytest.raises(UserError, match=r"few\.pt is damaged: its dictionary has 4 symbols, its CTC heads have 32$"):
        load(tmp_path / "few.pt")


@pytest.mark.parametrize("path", [HUBERT, WAVLM])
@pytest.mark.slow
def test_bfloat16(path: Path) -> None:
    rec, exact = load(path, device="cpu", dtype=torch.bfloat16), load(path, device="cpu")
    batch = rec.batch(AUDIO[:4])
    out, expected = rec(*batch), exact(*batch)
    assert rec.dtype == torch.bfloat16 and torch.equal(out.lengths, expected.lengths)
    for layer, logits in out.logits.items():
        assert logits.dtype == torch.bfloat16
        real = torch.arange(len(logits))[:, None] < out.lengths  # (T, B)
        same = logits.argmax(dim=-1) == expected.logits[layer].argmax(dim=-1)
        assert float(same[real].float().mean()) > 0.9
    assert len(rec.transcribe(AUDIO)) == len(AUDIO)


# ---- threads


THREADS = {
    "group_norm": {},
    "pos_conv_batch_norm": {"extractor_mode": "layer_norm", "conv_pos_batch_norm": True},
}


@pytest.mark.parametrize("name", THREADS)
@pytest.mark.slow
def test_several_threads_at_once(name: str, tmp_path: Path) -> None:
    """Hooks on the modules hold the padding mask of one batch at a time."""
    changes: dict[str, Any] = THREADS[name]
    if not changes.keys() <= HubertConfig.__dataclass_fields__.keys():
        pytest.skip("this build of fairseq has no conv_pos_batch_norm")
    rec = load(write_fine_tuned(tmp_path / "tuned.pt", **changes), device="cpu")
    audio = [noise(0.3 + 0.11 * i, 0.9, 0.25 + 0.05 * i, seed=i) for i in range(8)]
    expected = [rec(*rec.batch(waves)) for waves in audio]

    def several(first: int) -> list[Output]:
        return [rec(*rec.batch(audio[(first + i) % 8])) for i in range(8)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(several, range(8)))
    for first, outputs in enumerate(found):
        for i, out in enumerate(outputs):
            wanted = expected[(first + i) % 8]
            assert torch.equal(out.lengths, wanted.lengths)
            assert all(torch.equal(out.logits[layer], wanted.logits[layer]) for layer in rec.exits)


# ---- error types


def test_logits_that_are_not_finite() -> None:
    logits = {4: torch.zeros(6, 3, 5), 2: torch.zeros(6, 3, 5)}
    out = Output(logits, torch.tensor([6, 6, 6]))
    out.check_finite()
    logits[2][4, 1, 3], logits[2][0, 2, 0] = torch.inf, torch.nan
    with pytest.raises(NotFiniteError, match="the output of exit 2 is not finite for utterance 1 of the") as caught:
        out.check_finite()
    assert (caught.value.exit_layer, caught.value.row) == (2, 1)
    assert isinstance(caught.value, UserError)


def test_transcribe_refuses_logits_that_are_not_finite(tmp_path: Path) -> None:
    """The weights are finite, but their products overflow."""
    state = torch.load(HUBERT, weights_only=True)
    state["model"]["student_heads.2.proj.weight"].fill_(3e38)
    torch.save(state, tmp_path / "huge.pt")
    rec = load(tmp_path / "huge.pt", (2,), "cpu")
    with pytest.raises(NotFiniteError, match="exit 2 is not finite for utterance 0"):
        rec.transcribe(AUDIO)


def test_a_gpu_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """fairseq's trainer skips such a batch, which it recognises by the text of its RuntimeError."""
    rec = load(HUBERT, device="cpu")

    def full(**_: Any) -> Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(rec, "model", full)
    with pytest.raises(DeviceMemoryError) as caught:
        rec(torch.zeros(1, 8000))
    assert isinstance(caught.value, RuntimeError) and isinstance(caught.value, UserError)
    assert "out of memory" in str(caught.value) and '"out of memory" in str(e)' in inspect.getsource(Trainer)
    assert not rec._turn.locked()


def test_frames_and_symbols_of_two_models() -> None:
    hubert, wavlm = load(HUBERT, device="cpu"), load(WAVLM, device="cpu")
    check_frames(hubert.frame_grid, wavlm.frame_grid)
    check_symbols(hubert.symbols, wavlm.symbols)
    other = FrameGrid((10, 3), (5, 2), 2)
    sentence = r"kernels 10x3x3x3x3x2x2, .* against kernels 10x3, strides 5x2, cut to a multiple of 2\)$"
    with pytest.raises(FramesError, match=sentence):
        check_frames(hubert.frame_grid, other)
    with pytest.raises(SymbolsError, match="at index 4 the first has '|', the second has no symbol") as caught:
        check_symbols(hubert.symbols, hubert.symbols[:4])
    assert caught.value.sizes == (32, 4) and caught.value.difference.index == 4


@pytest.mark.parametrize("function", [load, fairseq_skd.load])
def test_the_example_of_the_docstring(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    (example,) = doctest.DocTestFinder(recurse=False).find(function, "load", globs={"load": function})
    assert doctest.DocTestRunner().run(example).failed == 0


def test_loading_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """fairseq's HubertModel logs its whole configuration."""
    logger = logging.getLogger("fairseq.models.hubert.hubert")
    with caplog.at_level(logging.INFO), caplog.at_level(logging.INFO, logger.name):
        load(HUBERT, device="cpu")
        assert caplog.messages == []
        logger.info("afterwards")
        assert caplog.messages == ["afterwards"]
    assert logger.filters == []


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda rec: rec.batch(np.zeros(16000, np.float32)), r"audio is one file or array: give a list, \[audio\]"),
        (lambda rec: rec.transcribe("a.flac"), r"audio is one file or array"),
        (lambda rec: rec.transcribe([np.zeros(16000, np.float32)], batch_size=0), "batch_size=0 is out of range"),
        (lambda rec: load(rec.path, device="gpu"), "cannot be moved to device=gpu"),
        (lambda rec: rec.transcribe(["none.wav"]), "^audio file none.wav cannot be read: it does not exist$"),
    ],
)
def test_mistakes_of_a_caller(call: Any, sentence: str) -> None:
    rec = load("tests/goldens/hubert.pt", exits=2, device="cpu")
    with pytest.raises(UserError, match=sentence):
        call(rec)


def test_a_move_that_fails_changes_nothing() -> None:
    rec = load("tests/goldens/hubert.pt", exits=2, device="cpu")
    with pytest.raises(UserError, match=r"^the model cannot be moved to device=cuda:99, dtype=torch\.float16: "):
        rec.to("cuda:99", torch.float16)
    assert (rec.device, rec.dtype) == (torch.device("cpu"), torch.float32)
    assert len(rec.transcribe([np.zeros(16000, np.float32)])) == 1


def test_errors_can_be_pickled() -> None:
    for error in (NotFiniteError(6, 2), DeviceMemoryError(), UnreadableAudioError("a.wav", "it is empty")):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 (made here)
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
