"""Start from folders: models of Hugging Face with a CTC head, and exports of ours (F11)."""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf, open_dict
from safetensors.torch import load_file

from fairseq_skd.encoders.fine_tuned import encoder_of_fine_tuned
from fairseq_skd.errors import UserError
from fairseq_skd.models import SkdCtc
from fairseq_skd.models.trained import open_trained
from fairseq_skd.recognizer import load
from fairseq_skd.training.starting import check_start, complete_start, read_state
from tests.builders import LETTERS, CtcTask, batch, model_config
from tests.decoding.checkpoints import write_fine_tuned
from tests.encoders.peers import LARGE, edit, write_folder
from tests.encoders.test_huggingface import to_shards
from tests.end_to_end.training import SMALL, corpus, parameters, train
from tests.exporting.exports import run

# The symbols of hubert-large-ls960-ft: <pad> is the blank.
ENGLISH = ["<pad>", "<s>", "</s>", "<unk>", *"|ETAOINSHRDLUMCWFGYPBVK'XJQZ"]
# Keys of a public copy of that release's config.json that our reader does not use.
RELEASE = {
    "gradient_checkpointing": False,
    "_name_or_path": "facebook/hubert-large-ls960-ft",
    "apply_spec_augment": True,
    "diversity_loss_weight": 0.1,
    "feat_extract_dropout": 0,
    "ctc_loss_reduction": "sum",
}
# As the usual notebooks write it: letters, | and two symbols in brackets, <s> and </s> beside them.
GERMAN = [*"abcdefghijklmnopqrstuvwxyzäöüß'-", "|", "[UNK]", "[PAD]"]
SAMPLE = batch([1.2, 0.8], ["GO ON", "A"], normalize=True)["net_input"]


def write_ctc(
    folder: Path, kind: str, symbols: list[str], blank: str, tokenizer: dict[str, Any] | None = None, **changes: Any
) -> Any:
    """Write a model of transformers with its tokenizer; ``changes`` are keys of config.json."""
    added = [] if "<s>" in symbols else ["<s>", "</s>"]
    model = write_folder(
        folder, kind, "ForCTC", vocab_size=len(symbols + added), pad_token_id=symbols.index(blank), **changes
    )
    numbers = {symbol: number for number, symbol in enumerate(symbols + added)}
    write(folder / "vocab.json", {symbol: numbers[symbol] for symbol in symbols})
    write(folder / "tokenizer_config.json", {"pad_token": blank, "word_delimiter_token": "|", **(tokenizer or {})})
    if added:
        write(folder / "added_tokens.json", {symbol: numbers[symbol] for symbol in added})
    return model


def write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")


def dictionary_of(symbols: Any) -> Dictionary:
    dictionary = Dictionary()
    for symbol in symbols:
        dictionary.add_symbol(symbol)
    return dictionary


def started(start: Path, symbols: Any, **changes: Any) -> SkdCtc:
    """Build and load a model as a training does that names no other encoder."""
    task = CtcTask(normalize=changes.get("normalize", False))
    task.target_dictionary = dictionary_of(symbols)
    cfg = model_config(start, **changes)
    with open_dict(cfg._get_parent()) as root:
        root.checkpoint = {"finetune_from_model": str(start)}
    torch.manual_seed(7)
    model = SkdCtc.build_model(root.model, task).eval()
    model.load_state_dict(read_state(start, model, task.target_dictionary, None)["model"], strict=True)
    return model


def assert_equal_logits(model: SkdCtc, theirs: Any, kept: list[str], rows: list[int], padded: bool) -> None:
    """Compare the teacher with transformers, each utterance alone and in a batch, to 1e-5.

    transformers pads rightly only for extractors with layer norms.
    """
    symbols = CtcTask().target_dictionary.symbols[:4] + kept
    columns = [0, *(symbols.index(symbol) for symbol in kept)]
    source, padding = SAMPLE["source"], SAMPLE["padding_mask"]
    with torch.no_grad():
        together = model(**SAMPLE)["exit_logits"][4].transpose(0, 1)
        batched = theirs(source, attention_mask=(~padding).long()).logits
        for row, length in enumerate((~padding).sum(1).tolist()):
            alone = theirs(source[row : row + 1, :length]).logits[0]
            found = model(source[row : row + 1, :length], padding[row : row + 1, :length])["exit_logits"][4][:, 0]
            for ours, wanted in ((found, alone), (together[row, : len(alone)], alone)):
                torch.testing.assert_close(ours[:, columns], wanted[:, rows], rtol=1e-5, atol=1e-5)
            if padded:
                ours, wanted = together[row, : len(alone), columns], batched[row, : len(alone), rows]
                torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hubert", "wav2vec2", "wavlm"])
def test_english_as_published(tmp_path: Path, kind: str) -> None:
    """The symbols and keys of hubert-large-ls960-ft, at a small size."""
    theirs = write_ctc(tmp_path, kind, ENGLISH, "<pad>", {"do_lower_case": False}, **LARGE)
    edit(tmp_path, **RELEASE)
    write(tmp_path / "preprocessor_config.json", {"do_normalize": True, "sampling_rate": 16000})
    model = started(tmp_path, LETTERS, normalize=True)
    assert_equal_logits(model, theirs, [*LETTERS], [0, *map(ENGLISH.index, LETTERS)], padded=True)


def test_german_with_symbols_in_brackets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The blank is the last symbol, and only added_tokens.json numbers <s> and </s>."""
    theirs = write_ctc(tmp_path, "wav2vec2", GERMAN, "[PAD]", {"unk_token": "[UNK]"})
    kept = ["|", *"enisratdhulcgmobwfkzvüpäßjöyqx"]
    with caplog.at_level(logging.INFO):
        model = started(tmp_path, [*kept, "é"])
    assert f"{tmp_path}: symbols of the CTC heads: 35 mapped, 1 new (é), 2 dropped (', -)" in caplog.text
    assert_equal_logits(model, theirs, kept, [GERMAN.index("[PAD]"), *map(GERMAN.index, kept)], padded=False)
    weights = model.state_dict()
    assert torch.equal(weights["w2v_encoder.proj.bias"][-1], torch.zeros(()))
    assert torch.equal(weights["w2v_encoder.proj.bias"][3], theirs.lm_head.bias[GERMAN.index("[UNK]")])
    assert float(weights["w2v_encoder.proj.weight"][-1].abs().max()) > 0
    assert load(tmp_path).symbols[:4] == ["<s>", "<pad>", "</s>", "<unk>"]


@pytest.mark.parametrize("delimiter", [" ", "_", {"content": "▁", "lstrip": False}])
def test_another_word_delimiter(tmp_path: Path, delimiter: Any) -> None:
    symbol = delimiter["content"] if isinstance(delimiter, dict) else delimiter
    symbols = [symbol if one == "|" else one for one in ENGLISH]
    theirs = write_ctc(tmp_path, "hubert", symbols, "<pad>", {"word_delimiter_token": delimiter})
    model = started(tmp_path, LETTERS)
    assert torch.equal(model.state_dict()["w2v_encoder.proj.weight"][4], theirs.lm_head.weight[symbols.index(symbol)])
    assert load(tmp_path).post_process == "letter"


@pytest.mark.parametrize(("case", "other"), [("lower", "upper"), ("upper", "lower")])
def test_letters_in_another_case(tmp_path: Path, case: str, other: str) -> None:
    """No row but | and ' would be found, and the head would silently start untrained."""
    write_ctc(tmp_path, "hubert", ENGLISH[:4] + [getattr(letter, case)() for letter in ENGLISH[4:]], "<pad>")
    with pytest.raises(UserError) as refused:
        started(tmp_path, getattr(LETTERS, other)())
    assert str(refused.value) == (
        f"checkpoint {tmp_path} has its letters in {case} case and the dictionary of task.data in {other} case, so 26 "
        f"rows of the CTC head would start untrained: write the data again, with fairseq_skd.manifest --normalize "
        f"{case}"
    )
    assert started(tmp_path, "абв")  # another script has no case to change


def test_text_that_transformers_would_write_in_lower_case(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """do_lower_case spells lower-case text with upper-case symbols, and turns it back."""
    write_ctc(tmp_path, "hubert", ENGLISH, "<pad>", {"do_lower_case": True})
    assert started(tmp_path, LETTERS)
    assert "do_lower_case=true: transformers writes the text of this model in lower case, but its" in caplog.text


def test_audio_of_another_scale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The encoder of model.w2v_path and the checkpoint of the start were trained on other audio."""
    write_ctc(tmp_path, "hubert", ENGLISH, "<pad>")
    model = started(tmp_path, LETTERS)
    assert "was fine-tuned with normalize" not in caplog.text
    write(tmp_path / "preprocessor_config.json", {"do_normalize": True})
    read_state(tmp_path, model, dictionary_of(LETTERS), None)
    assert f"{tmp_path} was fine-tuned with normalize=True, but this training has task.normalize=False" in caplog.text
    caplog.clear()
    model.cfg.w2v_normalize = False  # the user says that the file is wrong
    read_state(tmp_path, model, dictionary_of(LETTERS), None)
    assert "was fine-tuned with normalize" not in caplog.text


@pytest.mark.parametrize("key", ["unk_token", "pad_token"])
def test_tokens_that_only_the_special_tokens_map_names(tmp_path: Path, key: str) -> None:
    """As in folders of 2021; a newer tokenizer_config.json repeats them, and then wins."""
    write_ctc(tmp_path, "hubert", GERMAN, "[PAD]", {"unk_token": None})
    write(tmp_path / "special_tokens_map.json", {key: {"content": "[UNK]", "lstrip": False}})
    if key == "unk_token":
        assert "[UNK]" not in open_trained(tmp_path).dictionary
    else:
        with pytest.raises(UserError, match=r"makes '\[PAD\]' the blank, but the tokenizer's is '\[UNK\]', index 33"):
            open_trained(tmp_path)
        write(tmp_path / "tokenizer_config.json", {"pad_token": "[PAD]", "added_tokens_decoder": {}})
        assert "[UNK]" in open_trained(tmp_path).dictionary


@pytest.mark.parametrize("number", [0, 32, None])
def test_a_blank_that_is_a_letter(tmp_path: Path, number: int | None) -> None:
    """A missing pad_token_id is 0, as in transformers: here the letter a."""
    write_ctc(tmp_path, "hubert", GERMAN, "[PAD]")
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("pad_token_id")
    write(tmp_path / "config.json", config if number is None else config | {"pad_token_id": number})
    with pytest.raises(
        UserError, match=rf"pad_token_id={number or 0} makes '.*' the blank, but .* '\[PAD\]', index 34"
    ):
        open_trained(tmp_path)


def test_weights_in_shards(tmp_path: Path) -> None:
    """Each file holds weights, so each hash of it names them, unlike the index."""
    theirs = write_ctc(tmp_path, "hubert", ENGLISH, "<pad>")
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    to_shards(tmp_path, weights, "safetensors")
    assert open_trained(tmp_path).path == str(tmp_path / "part0.safetensors")
    assert_equal_logits(started(tmp_path, ENGLISH[4:]), theirs, ENGLISH[4:], [0, *range(4, len(ENGLISH))], padded=False)


def test_mms(tmp_path: Path) -> None:
    write_ctc(tmp_path, "wav2vec2", ENGLISH, "<pad>")
    write(tmp_path / "vocab.json", {"deu": {"a": 0}, "eng": {"a": 0}})
    with pytest.raises(UserError, match=r"vocab\.json has one vocabulary per language \(deu, eng\), as MMS, which is"):
        started(tmp_path, LETTERS)
    edit(tmp_path, adapter_attn_dim=16)
    with pytest.raises(UserError, match=r"adapter_attn_dim=16 in its config\.json is not supported, only null is"):
        started(tmp_path, LETTERS)


def test_a_folder_that_holds_no_fine_tuned_model(tmp_path: Path) -> None:
    write_folder(tmp_path / "hubert", "hubert")
    with pytest.raises(UserError, match=r"class \['HubertModel'\], but a HubertForCTC, .* is needed$"):
        started(tmp_path / "hubert", LETTERS)
    for folder, fails in ((tmp_path, True), (tmp_path / "hubert", False)):
        keys = {"save_dir": str(tmp_path / "run"), "finetune_from_model": str(folder), "continue_once": None}
        cfg = OmegaConf.create({"checkpoint": {"restore_file": "checkpoint_last.pt", **keys}})
        for key in ("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader"):
            cfg.checkpoint[key] = False
        if fails:
            with pytest.raises(UserError, match="is a folder: give a checkpoint in it, such as checkpoint_best.pt"):
                check_start(cfg)
        else:
            check_start(cfg)


@pytest.mark.slow
@pytest.mark.parametrize("style", ["ours", "export", "hubert_ctc", "wav2vec_ctc"])
def test_the_encoder_of_a_fine_tuned_checkpoint(tmp_path: Path, style: str) -> None:
    """model.w2v_path can be left out with any checkpoint that holds its encoder's configuration."""
    path = write_fine_tuned(tmp_path / "checkpoint_best.pt", "wav2vec2" if style == "wav2vec_ctc" else "hubert")
    wanted = open_trained(path).encoder
    state = torch.load(path, weights_only=True)
    del state["task_state"]
    args = state["cfg"]["model"]["w2v_args"]
    if style == "export":
        path = run(path, 0, "fairseq", tmp_path / "out")
    elif style == "hubert_ctc":  # fairseq saves the whole configuration of the pretraining
        state["cfg"] = {"model": {"_name": style, "w2v_args": {**args, "common": {"seed": 1}}}, "task": {}}
        torch.save(state, path)
    elif style == "wav2vec_ctc":  # its old style is flat
        flat = argparse.Namespace(arch="wav2vec2", **{k: v for k, v in args["model"].items() if k != "_name"})
        vars(flat).update(args["task"])
        state["args"] = argparse.Namespace(arch=style, w2v_args=flat)
        del state["cfg"]
        torch.save(state, path)
    found = encoder_of_fine_tuned(path)
    assert (found.kind, found.normalize, found.weights) == (wanted.kind, wanted.normalize, {})
    assert found.architecture == wanted.architecture
    assert started(path, LETTERS, keep_layers=2, student_layers=[])
    state = torch.load(path / "checkpoint.pt" if path.is_dir() else path, weights_only=False)
    model = state["cfg"]["model"] if state.get("cfg") else vars(state["args"])
    model["w2v_args"] = None
    torch.save(state, tmp_path / "without.pt")
    with pytest.raises(UserError, match=r"without\.pt does not hold the configuration of its encoder: set model\.w2v"):
        encoder_of_fine_tuned(tmp_path / "without.pt")


def test_the_key_that_is_left_out() -> None:
    for given in ("???", None, "/models/hubert.pt"):
        cfg = OmegaConf.create({"model": {"w2v_path": given}, "checkpoint": {"finetune_from_model": "/ctc"}})
        complete_start(cfg)
        assert cfg.model.w2v_path == ("/models/hubert.pt" if given == "/models/hubert.pt" else "/ctc")
    cfg = OmegaConf.create({"model": {"w2v_path": "???"}, "checkpoint": {"finetune_from_model": None}})
    complete_start(cfg)
    assert OmegaConf.is_missing(cfg.model, "w2v_path")


@pytest.mark.faults
@pytest.mark.slow
def test_training_from_folders(tmp_path: Path) -> None:
    """fairseq's trainer took a folder for a missing file and silently started without it.

    The folder's do_normalize, which converters write, is overridden; the checkpoint has the value.
    """
    data, folder, run_dir = corpus(tmp_path / "data"), tmp_path / "hub", tmp_path / "run"
    theirs = write_ctc(folder, "hubert", ENGLISH, "<pad>")
    write(folder / "processor_config.json", {"feature_extractor": {"do_normalize": True, "sampling_rate": 16000}})
    given = [*SMALL, f"task.data={data}", "optimization.max_update=2", "optimization.lr=[1e-9]"]
    start = f"checkpoint.finetune_from_model={folder}"
    refused = train(tmp_path / "refused", [*given, start]).stdout.rstrip().splitlines()[-1]
    assert refused == (
        f"fairseq-hydra-train: task.normalize=False but {folder}/processor_config.json says do_normalize=true: set "
        f"task.normalize=true, or, if that is wrong, model.w2v_normalize=false"
    )
    done = train(run_dir, [*given, start, "model.w2v_normalize=false"])
    assert done.returncode == 0, done.stdout[-3000:]
    assert "32 mapped, 0 new, 0 dropped" in done.stdout
    assert "model.w2v_normalize=False wins, though" in done.stdout
    rec = load(run_dir / "checkpoint_last.pt", exits=(4,))
    assert not rec.waveforms.normalize
    weights, head = parameters(run_dir / "checkpoint_last.pt"), theirs.lm_head.weight.detach()
    wanted = head[[0, *map(ENGLISH.index, LETTERS)]]
    torch.testing.assert_close(weights["w2v_encoder.proj.weight"][[0, *range(4, 32)]], wanted, rtol=0, atol=1e-7)

    ours = run(run_dir / "checkpoint_last.pt", 2, "fairseq", tmp_path / "ours")
    pruned = ["model.student_layers=[]", "checkpoint.best_checkpoint_metric=wer"]
    done = train(tmp_path / "again", [*given, *pruned, f"checkpoint.finetune_from_model={ours}"])
    assert done.returncode == 0, done.stdout[-3000:]
    again = parameters(tmp_path / "again" / "checkpoint_last.pt")
    torch.testing.assert_close(
        again["w2v_encoder.proj.weight"], weights["student_heads.2.proj.weight"], rtol=0, atol=1e-7
    )
