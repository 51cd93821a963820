"""A folder for transformers: its logits, texts and settings are the recognizer's.

Run with transformers 4; the same file passes with transformers 5.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.data.data_utils import post_process
from fairseq.models.hubert.hubert import HubertConfig
from safetensors.torch import load_file, save_file

from fairseq_skd.errors import UserError
from tests.decoding.checkpoints import FULL, STUDENT, edit_checkpoint
from tests.exporting.exports import EXITS, KINDS, STYLES, load, logits, noise, run, with_pieces, write

transformers = pytest.importorskip("transformers")
LENGTHS = (0.1, 0.43, 7.77, 30.0)


def theirs_of(folder: Path) -> Any:
    model, report = transformers.AutoModelForCTC.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return model.eval()


def assert_near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Within 1e-4 of the largest logit."""
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("exit_layer", EXITS)
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", KINDS)
def test_logits(kind: str, style: str, exit_layer: int, tmp_path: Path) -> None:
    """Alone, padded if the extractor allows it, and read again by this package."""
    checkpoint = write(tmp_path / "checkpoint_best.pt", kind, style)
    folder = run(checkpoint, exit_layer, "hf", tmp_path / "out")
    rec, theirs, audio = load(checkpoint, exit_layer), theirs_of(folder), noise(*LENGTHS)
    again = load(folder)
    assert (again.depth, again.symbols, again.post_process) == (exit_layer, rec.symbols, rec.post_process)
    alone = logits(rec, audio)
    for one, wanted, same in zip(audio, alone, logits(again, audio), strict=True):
        source, _ = rec.batch([one])
        with torch.no_grad():
            assert_near(theirs(source).logits[0], wanted)
        assert torch.equal(same, wanted)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    assert settings["return_attention_mask"] == settings["do_normalize"] == (style == "pre-LN")
    if style == "pre-LN":
        source, padding = rec.batch(audio[:3])
        with torch.no_grad():
            padded = theirs(source, attention_mask=(~padding).long()).logits
        for row, wanted in enumerate(alone[:3]):
            assert_near(padded[row, : len(wanted)], wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"layer_norm_first": True},
        {"extractor_mode": "layer_norm"},
        {"activation_fn": "relu", "conv_bias": True, "conv_pos": 15},
        {"encoder_embed_dim": 16, "required_seq_len_multiple": 5},  # as wide as the convolutions
    ],
    ids=lambda changes: ",".join(changes),
)
def test_other_architectures(changes: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "checkpoint_best.pt", "wav2vec2", **changes)
    folder = run(checkpoint, STUDENT, "hf", tmp_path / "out")
    rec, theirs, audio = load(checkpoint, STUDENT), theirs_of(folder), noise(0.51)
    with torch.no_grad():
        assert_near(theirs(rec.batch(audio)[0]).logits[0], logits(rec, audio)[0])
    assert torch.equal(logits(load(folder), audio)[0], logits(rec, audio)[0])


@pytest.mark.parametrize("exit_layer", EXITS)
def test_a_batch_norm_before_the_positional_convolution(exit_layer: int, tmp_path: Path) -> None:
    """And frames of 40 ms, as mhubert-base-25hz."""
    if "conv_pos_batch_norm" not in HubertConfig.__dataclass_fields__:
        pytest.skip("this build of fairseq has no conv_pos_batch_norm")
    convolutions = "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 3"
    changes = {"conv_pos_batch_norm": True, "conv_feature_layers": convolutions}
    checkpoint = write(tmp_path / "checkpoint_best.pt", "hubert", **changes)
    state = torch.load(checkpoint, weights_only=False)
    for name in ("running_mean", "running_var"):
        state["model"][f"w2v_encoder.w2v_model.encoder.pos_conv.0.{name}"].uniform_(0.5, 2)
    torch.save(state, checkpoint)
    folder = run(checkpoint, exit_layer, "hf", tmp_path / "out")
    rec, theirs, audio = load(checkpoint, exit_layer), theirs_of(folder), noise(0.51, 1.7)
    assert type(theirs.hubert.encoder.pos_conv_embed.batch_norm) is torch.nn.BatchNorm1d
    for one, wanted in zip(audio, logits(rec, audio), strict=True):
        with torch.no_grad():
            assert_near(theirs(rec.batch([one])[0]).logits[0], wanted)
    again = load(folder)
    assert again.frame_seconds == rec.frame_seconds == 0.04
    assert all(torch.equal(*pair) for pair in zip(logits(again, audio), logits(rec, audio), strict=True))


@pytest.mark.parametrize("style", STYLES)
def test_the_pipeline_gives_our_text(style: str, tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "checkpoint_best.pt", style=style)
    folder = run(checkpoint, STUDENT, "hf", tmp_path / "out")
    rec, audio = load(checkpoint, STUDENT), noise(0.9, 1.4)
    pipeline = transformers.pipeline("automatic-speech-recognition", str(folder))
    found = [pipeline({"raw": one, "sampling_rate": 16000})["text"] for one in audio]
    wanted = [rec.transcribe([one])[0].text for one in audio]
    assert found == wanted == list(map(str, load(folder).transcribe(audio))) and all(
        len(set(text)) > 3 for text in wanted
    )
    processor = transformers.AutoProcessor.from_pretrained(folder)
    assert type(processor.tokenizer).__name__ == "Wav2Vec2CTCTokenizer"
    assert (processor.tokenizer.pad_token, processor.tokenizer.pad_token_id) == ("<s>", 0)
    assert processor.tokenizer.convert_ids_to_tokens(list(range(32))) == rec.symbols
    assert processor.tokenizer("GO ON").input_ids == [rec.symbols.index(symbol) for symbol in "GO|ON"]
    inputs = processor(audio[0], sampling_rate=16000)
    # transformers adds 1e-7 to the variance, fairseq 1e-5.
    assert np.allclose(inputs["input_values"][0], rec.waveforms.read(audio[0]), rtol=1e-3, atol=1e-6)


def test_pieces(tmp_path: Path) -> None:
    """The tokenizer says what our decoder says, whatever the units; it spells with known pieces."""
    checkpoint = with_pieces(write(tmp_path / "checkpoint_best.pt"))
    folder = run(checkpoint, STUDENT, "hf", tmp_path / "out")
    rec, tokenizer = load(checkpoint, STUDENT), transformers.AutoProcessor.from_pretrained(folder).tokenizer
    rng = np.random.default_rng(0)
    assert tokenizer.decode([0, 0]) == tokenizer.decode([]) == ""
    for _ in range(200):
        frames = rng.choice([0, 0, *range(4, 14)], size=rng.integers(1, 12))
        units = [unit for place, unit in enumerate(frames) if unit and (place == 0 or frames[place - 1] != unit)]
        wanted = post_process(rec.dictionary.string(torch.tensor(units)), "sentencepiece")
        assert tokenizer.decode(frames) == wanted
    assert tokenizer("THE TENS", add_special_tokens=False).tokens() == ["▁THE", "▁", "TEN", "S"]
    audio = noise(1.0)
    pipeline = transformers.pipeline("automatic-speech-recognition", str(folder))
    assert pipeline({"raw": audio[0], "sampling_rate": 16000})["text"] == rec.transcribe(audio)[0].text
    assert list(map(str, load(folder).transcribe(audio))) == list(map(str, rec.transcribe(audio)))


def test_the_blanks_weight_is_in_the_bias(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "checkpoint_best.pt")
    weighted = edit_checkpoint(checkpoint, tmp_path / "weighted.pt", model={"blank_weight": 1.5})
    folder = run(weighted, FULL, "hf", tmp_path / "out")
    rec, audio = load(weighted, FULL), noise(0.4)
    with torch.no_grad():
        assert_near(theirs_of(folder)(rec.batch(audio)[0]).logits[0], logits(rec, audio)[0])
    assert load_file(folder / "model.safetensors")["lm_head.bias"][0] == pytest.approx(
        1.5 + float(torch.load(checkpoint, weights_only=True)["model"]["w2v_encoder.proj.bias"][0])
    )


@pytest.mark.parametrize(
    ("changes", "saved", "words"),
    [
        ({"pos_conv_depth": 2}, {}, "its encoder has pos_conv_depth=2"),
        ({"layer_type": "conformer"}, {}, "its encoder has layer_type=conformer"),
        ({"activation_fn": "tanh"}, {}, "its encoder has activation_fn=tanh"),
        ({"crop_seq_to_multiple": 2}, {}, "its encoder has crop_seq_to_multiple=2"),
        ({}, {"model": {"blank_weight": 2.0, "blank_mode": "set"}}, "model.blank_mode=set makes the blank's logit"),
    ],
)
def test_what_transformers_lacks_is_refused(
    changes: dict[str, Any], saved: dict[str, dict[str, Any]], words: str, tmp_path: Path
) -> None:
    checkpoint = write(tmp_path / "checkpoint_best.pt", "wav2vec2", **changes)
    edited = edit_checkpoint(checkpoint, tmp_path / "edited.pt", **saved)
    with pytest.raises(UserError, match=f"^checkpoint {edited} cannot be written as hf: {words}.*--format$"):
        run(edited, FULL, "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_with_its_own_order_of_symbols(tmp_path: Path) -> None:
    """As the hub's: <pad> is the blank, and nothing is called <unk>."""
    from tests.encoders.peers import write_folder

    vocabulary = ["</s>", "E", "<pad>", "|", "<s>", "T"]
    model = write_folder(tmp_path, "wav2vec2", "ForCTC", vocab_size=6, pad_token_id=2)
    (tmp_path / "vocab.json").write_text(json.dumps({symbol: index for index, symbol in enumerate(vocabulary)}))
    rec, audio = load(tmp_path), noise(0.7)
    assert rec.symbols == ["<s>", "<pad>", "</s>", "<unk>", "E", "|", "T"]
    with torch.no_grad():
        wanted = model(rec.batch(audio)[0]).logits[0]
    found = logits(rec, audio)[0]
    assert_near(found[:, [0, 1, 2, 4, 5, 6]], wanted[:, [2, 4, 0, 1, 3, 5]])
    assert (found[:, 3] < -1000).all()


def change(folder: Path, name: str, **values: Any) -> None:
    content = json.loads((folder / name).read_text()) | values
    (folder / name).write_text(json.dumps(content))


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    folder = run(write(tmp_path / "checkpoint_best.pt"), STUDENT, "hf", tmp_path / "out")
    config, vocabulary = ((folder / name).read_text() for name in ("config.json", "vocab.json"))
    for name, values, words in (
        ("config.json", {"architectures": ["HubertModel"]}, "but a HubertForCTC, Wav2Vec2ForCTC or WavLMForCTC is"),
        ("config.json", {"model_type": "whisper"}, "holds a Hugging Face model of type whisper"),
        ("config.json", {"pad_token_id": 32}, "pad_token_id=32 is no index of vocab.json"),
        ("config.json", {"add_adapter": True}, "add_adapter=true"),
        ("vocab.json", {"E": 6}, "does not number its symbols from 0"),
        ("vocab.json", {"E": "5"}, "does not number its symbols from 0"),
        ("vocab.json", {"a b": 32}, "the symbol 'a b' is empty, or has a space or a control character"),
        ("vocab.json", {"Ä": 32}, "has 32 outputs, but vocab.json has 33 symbols"),
        (
            "tokenizer_config.json",
            {"word_delimiter_token": "E"},
            "word_delimiter_token=E, but vocab.json has | as well",
        ),
    ):
        change(folder, name, **values)
        with pytest.raises(UserError) as refused:
            load(folder)
        assert words in str(refused.value)
        (folder / "config.json").write_text(config)
        (folder / "vocab.json").write_text(vocabulary)
    change(folder, "tokenizer_config.json", word_delimiter_token="|")
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.bias"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"its CTC head \(lm_head\) is missing"):
        load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no weights: add model\.safetensors or pytorch_model\.bin"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"is a folder without checkpoint\.pt or config\.json: give a checkpoint"):
        load(folder)
