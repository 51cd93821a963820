"""The model card, ``README.md`` of an exported folder: front matter, training, results, use.

Texts of a checkpoint are untrusted. In the YAML they are quoted by the YAML library. In Markdown
they stand in code spans, on one line, without backticks.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import fairseq_skd
from fairseq_skd.encoders.pretrained import PretrainedEncoder, section
from fairseq_skd.errors import UserError, shown
from fairseq_skd.files.units import WORD_MARK
from fairseq_skd.recognizer import Recognizer
from fairseq_skd.scoring.leading import CER, WER, leads

NAME = "README.md"
# Licences that the hub knows by these names: https://huggingface.co/docs/hub/repositories-licenses
_LICENSES = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 "
    "bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc "
    "cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 "
    "cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 "
    "cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 "
    "eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 "
    "odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr unknown other "
)
_OWN_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,99}")
# How the folder is used: the library's name on the hub, the language, and the lines.
_USE: dict[str, tuple[str, str, str]] = {
    "fairseq": (
        "fairseq",
        "python",
        'import fairseq_skd\n\nrec = fairseq_skd.load("FOLDER")\nprint(rec.transcribe(["audio.wav"])[0].text)',
    ),
    "hf": (
        "transformers",
        "python",
        # The name of a file would need ffmpeg.
        "import soundfile\nfrom transformers import pipeline\n\n"
        'recognizer = pipeline("automatic-speech-recognition", "FOLDER")\n'
        'audio, sample_rate = soundfile.read("audio.wav", dtype="float32")\n'
        'print(recognizer({"raw": audio, "sampling_rate": sample_rate})["text"])',
    ),
    "onnx": ("onnx", "sh", "pip install numpy onnxruntime soundfile\npython FOLDER/decode.py audio.wav"),
    "sherpa": (
        "sherpa-onnx",
        "python",
        "import sherpa_onnx\nimport soundfile\n\nmodel = sherpa_onnx.OfflineRecognizer.from_omnilingual_asr_ctc(\n"
        '    model="FOLDER/model.onnx", tokens="FOLDER/tokens.txt"\n)\n'
        'audio, sample_rate = soundfile.read("audio.wav", dtype="float32")\nstream = model.create_stream()\n'
        "stream.accept_waveform(sample_rate, audio)\nmodel.decode_stream(stream)\nprint(stream.result.text)",
    ),
    "web": (
        "onnx",
        "sh",
        "# then open http://localhost:8000\npython -m http.server 8000 --bind 127.0.0.1 --directory FOLDER",
    ),
}
# Rows of the table of the training: keys of the saved configuration.
_TRAINING = (
    *("optimization.max_update", "optimization.lr", "optimization.update_freq", "dataset.max_tokens"),
    *("distributed_training.distributed_world_size", "common.fp16", "common.seed", "model.student_layers"),
    *("model.keep_layers", "model.freeze_finetune_updates", "model.mask_prob", "model.mask_channel_prob"),
    *("model.layerdrop", "model.final_dropout", "criterion._name", "criterion.kd_weight", "criterion.kd_warmup"),
    *("criterion.temperature", "criterion.frames", "criterion.schedule", "criterion.tau", "criterion.alpha"),
    "criterion.stop_gradient",
)
_PATHS = ("model.w2v_path", "task.data", "criterion.teacher_path")  # of these only the last part is shown


def check_license(name: str) -> dict[str, str]:
    """Return the fields of the front matter for a licence.

    >>> check_license("mit"), check_license("my-terms-1.0")
    ({'license': 'mit'}, {'license': 'other', 'license_name': 'my-terms-1.0'})

    Raises:
        UserError: the hub would refuse the name.
    """
    if name in _LICENSES.split():
        return {"license": name}
    if not _OWN_LICENSE.fullmatch(name):
        raise UserError(
            f"--license {shown(name)} is no name that the Hugging Face hub takes: give one such as mit, apache-2.0 or "
            f"cc-by-4.0, or a name of your own in lower-case letters, digits, dots and hyphens"
        )
    return {"license": "other", "license_name": name}


def read_results(folder: Path, rec: Recognizer) -> dict[str, Any]:
    """Read ``summary.json`` of a decode of this checkpoint at this exit.

    Raises:
        UserError: there is none, or it is of another checkpoint or exit.
    """
    file = folder / "summary.json"
    if not file.is_file():
        raise UserError(f"--results {folder} has no summary.json: give the results folder of fairseq_skd.infer")
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
        hashed, layer = summary.get("checkpoint_sha256"), summary["exit_layer"]
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{file} is no summary of fairseq_skd.infer: give its results folder") from error
    if hashed is None:
        raise UserError(f"{file} does not say of which checkpoint it is (checkpoint_sha256): run infer again")
    if hashed != rec.sha256:
        raise UserError(
            f"{file} is of another checkpoint ({shown(summary.get('checkpoint'))}) than {rec.path}: run infer with "
            f"common_eval.path={rec.path}"
        )
    if layer != rec.exits[0]:
        raise UserError(
            f"{file} is of exit {shown(layer)}, but exit {rec.exits[0]} is exported: run infer with "
            f"decoding.layer={rec.exits[0]}"
        )
    return summary


def write_card(
    rec: Recognizer,
    folder: Path,
    form: str,
    command: str,
    license_fields: Mapping[str, str],
    results: Mapping[str, Any] | None,
) -> None:
    """Write ``README.md``.

    Args:
        rec: loaded at the exported exit.
        folder: the folder.
        form: name of the format.
        command: how the folder was exported, one line.
        license_fields: see :func:`check_license`.
        results: see :func:`read_results`; None: nothing was measured.
    """
    (layers,) = rec.exits
    encoder = PretrainedEncoder.from_w2v_args(rec.config["model"]["w2v_args"])
    library, language, lines = _USE[form]
    front = {
        **license_fields,
        "library_name": library,
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["automatic-speech-recognition", "ctc", encoder.kind, "fairseq", "fairseq_skd"],
    }
    pieces = any(symbol.startswith(WORD_MARK) for symbol in rec.symbols)
    which = f"all {layers} layers" if layers == rec.depth else f"the first {layers} of {rec.depth} layers"
    model = {
        "encoder": f"{encoder.kind}, {which}",
        "parameters": f"{rec.parameters:,}",
        "units": f"{len(rec.symbols)} {'word pieces' if pieces else 'symbols'}, index 0 is the CTC blank",
        "audio": f"{rec.sample_rate} Hz, one channel, "
        + ("scaled to zero mean and unit variance" if encoder.normalize else "not scaled"),
        "frames": f"one per {1000 * rec.frame_seconds:g} ms",
    }
    title = f"A CTC speech recognizer of {layers} layers"
    card = (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {title}\n\n{_table('model', model)}\n"
        f"## Use\n\n```{language}\n{lines}\n```\n\n`FOLDER` is this folder.\n\n"
        f"## Training\n\n{_training(rec)}\n"
        f"## Results\n\n{_results(results)}\n"
        f"## Export\n\nWritten by fairseq_skd {fairseq_skd.__version__}:\n\n```sh\n{shown(command, 2000)}\n```\n"
    )
    (folder / NAME).write_text(card, encoding="utf-8")


def _training(rec: Recognizer) -> str:
    """Make the table of the training; rows that the checkpoint does not know are left out."""
    rows: dict[str, Any] = {"updates": rec.updates}
    rows |= {key: _base(_value(rec.config, key)) for key in _PATHS}
    rows |= {key: _value(rec.config, key) for key in _TRAINING}
    known = {key: value for key, value in rows.items() if value is not None}
    return _table("key", known) if known.keys() - {"model.student_layers"} else "Not known.\n"


def _results(results: Mapping[str, Any] | None) -> str:
    if results is None:
        return "Not measured here.\n"
    rows = {
        "subset": Path(str(results.get("manifest"))).stem,
        **{f"{rate.upper()} %": results.get(rate) for rate in dict.fromkeys((leads(results), WER, CER))},
        "sentences": results.get("sentences"),
        "words": results.get("words"),
        "search": results.get("search"),
        "precision": results.get("precision"),
    }
    return _table("measured by `fairseq_skd.infer` on the checkpoint before the export", rows)


def _value(config: Mapping[str, Any], key: str) -> Any:
    name, _, key = key.partition(".")
    return section(config, name).get(key)


def _base(path: Any) -> Any:
    return path if not isinstance(path, str) else Path(path.rstrip("/")).name


def _table(title: str, rows: Mapping[str, Any]) -> str:
    body: Iterable[str] = (f"| {key} | {_code(value)} |" for key, value in rows.items())
    return "\n".join([f"| {title} | |", "|---|---|", *body]) + "\n"


def _code(value: Any) -> str:
    r"""Make a code span for a cell of a table, whatever the text holds.

    >>> print(_code("a`|<b>\n# c"))
    `a'\|<b> # c`
    """
    text = json.dumps(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
    escaped = shown(text, 200).replace("`", "'").replace("\\", "/").replace("|", "\\|")
    return f"`{escaped or ' '}`"
