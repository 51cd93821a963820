import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from fairseq_skd import report
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.reporting.folders import read_runs
from fairseq_skd.reporting.page import inline_svg, render
from fairseq_skd.scoring.bootstrap import rate_interval
from fairseq_skd.scoring.transcripts import count_errors, utterance_errors


class Cells(HTMLParser):
    """A parser that collects table rows, identifiers and addresses."""

    def __init__(self):
        super().__init__()
        self.rows, self.addresses, self.ids, self._open = [], [], [], False

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._open = True
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href", "data")]
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data):
        if self._open:
            self.rows[-1][-1] += data


def page_of(folder, out):
    report.main([str(folder), "--out", str(out)])
    text = out.read_text(encoding="utf-8")
    cells = Cells()
    cells.feed(text)
    return text, cells


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    return page_of(runs, tmp_path_factory.mktemp("page") / "new" / "report.html")


@pytest.mark.slow
def test_tables(page, runs):
    _, cells = page
    for layer in (4, 2):
        summary = json.loads((runs / "skd" / f"decode-{layer}" / "summary.json").read_text())
        (row,) = [row for row in cells.rows if row[0] == f"skd/decode-{layer}"]
        assert row[1:4] == ["test", "full" if layer == 4 else "student", f"{layer} of 4"]
        assert row[4:6] == [f"{summary['parameters']:,}", f"{summary['wer']:.2f}"]
        assert row[7:] == [f"{summary['cer']:.2f}", "5"]
    found = json.loads((runs / "skd" / "align" / "align.json").read_text())
    (row,) = [row for row in cells.rows if row[0] == "skd/align"]
    rate = found["frame_disagreement"]
    assert row[1:4] == ["test", "4 of 4", "2 of 4"]
    assert row[4:6] == [f"{100 * rate['value']:.2f}", f"{100 * rate['low']:.2f} to {100 * rate['high']:.2f}"]
    (header,) = [row for row in cells.rows if row[:1] == ["compared"]]
    same = row[header.index("matched spikes on the same frame %")]
    assert same == f"{100 * found['offset']['within_ms']['0']:.2f}"


def test_the_page_lies_in_the_folder_of_runs(runs, tmp_path, monkeypatch, capsys):
    shutil.copytree(runs / "skd" / "decode-2", tmp_path / "runs" / "decode")
    monkeypatch.chdir(tmp_path)
    report.main(["runs"])
    assert capsys.readouterr().out.startswith(f"{tmp_path}/runs/report.html (")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.slow
def test_the_interval_is_computed_from_the_texts(runs):
    for one in read_runs(runs).decoded:
        texts = [(runs / one.name / f"{side}.word").read_text().splitlines() for side in ("hypo", "ref")]
        pairs = [[line.rsplit(" (", 1)[0].split() for line in pair] for pair in zip(*texts, strict=True)]
        counts = [count_errors(*pair) for pair in pairs]
        expected = rate_interval([c.errors for c in counts], [c.total for c in counts])
        assert one.interval == pytest.approx([100 * bound for bound in expected])
        assert one.interval.value == pytest.approx(one.summary["wer"], abs=1e-4)


def test_the_interval_draws_the_speakers_of_the_manifest(runs, tmp_path, capsys):
    folder = Path(shutil.copytree(runs / "skd" / "decode-2", tmp_path / "runs" / "decode"))
    summary = json.loads((folder / "summary.json").read_text())
    shutil.copy(summary["manifest"], tmp_path / "test.tsv")
    summary["manifest"] = str(tmp_path / "test.tsv")
    (folder / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "test.spk").write_text("ann\nann\nbob\nbob\ncy\n")
    (one,) = read_runs(tmp_path / "runs").decoded
    counts = [(c.errors, c.total) for c in utterance_errors(folder)]
    expected = rate_interval(*zip(*counts, strict=True), ["ann", "ann", "bob", "bob", "cy"])
    assert one.interval == pytest.approx([100 * bound for bound in expected])
    assert one.resampled == {"resampled": "speakers", "speakers": 3}
    _, cells = page_of(tmp_path / "runs", tmp_path / "page.html")
    assert cells.rows[1][6] == f"{one.interval.low:.2f} to {one.interval.high:.2f} (3 speakers)"
    (tmp_path / "test.spk").write_text("ann\n")
    assert read_runs(tmp_path / "runs").decoded[0].interval is None
    assert "no interval: " in (told := capsys.readouterr().err) and "test.spk has 1 lines" in told


def test_texts_of_another_run_give_no_interval(runs, tmp_path, capsys):
    shutil.copytree(runs / "skd" / "decode-2", tmp_path / "runs" / "decode")
    (tmp_path / "runs" / "decode" / "hypo.word").write_text("A NO (None-0)\n" * 5)
    (one,) = read_runs(tmp_path / "runs").decoded
    assert one.interval is None
    folder = tmp_path / "runs" / "decode"
    assert capsys.readouterr().err.startswith(
        f"no interval: {folder} is incomplete: its hypo.word and ref.word have no"
    )
    (tmp_path / "runs" / "decode" / "hypo.word").unlink()
    assert read_runs(tmp_path / "runs").decoded[0].interval is None


@pytest.mark.faults
def test_incomplete_results_are_named(runs, tmp_path, capsys):
    """X9: the file that is written last is missing."""
    folder = tmp_path / "runs"
    for name in ("decode-2", "decode-4", "align"):
        shutil.copytree(runs / "skd" / name, folder / name)
    read_runs(folder)
    assert capsys.readouterr().err == ""
    (folder / "decode-2" / "summary.json").unlink()
    (folder / "align" / "align.json").unlink()
    found = read_runs(folder)
    assert [one.name for one in found.decoded] == ["decode-4"] and not found.aligned
    assert capsys.readouterr().err == (
        f"left out: {folder}/decode-2 is incomplete, it has no summary.json\n"
        f"left out: {folder}/align is incomplete, it has no align.json\n"
    )


@pytest.mark.slow
def test_the_page_needs_no_other_file(page):
    text, cells = page
    assert not re.search(r"https?:|//\w", re.sub(r"base64,[\w+/=]+", "", text.replace("https://", "https:")))
    assert cells.addresses
    assert all(address.startswith(("data:", "#")) for address in cells.addresses)
    assert "@import" not in text and "url(" not in re.sub(r"url\(#[\w-]+\)", "", text)
    assert "default-src 'none'" in html.unescape(text)


def test_identifiers_are_unique_and_references_exist(page):
    text, cells = page
    assert len(set(cells.ids)) == len(cells.ids)
    for target in re.findall(r"url\(#([\w-]+)\)", text) + [a[1:] for a in cells.addresses if a.startswith("#")]:
        assert target in cells.ids


def test_sections(page):
    text, _ = page
    assert text.count('class="player"') == 2
    assert text.count("<audio ") == 2
    for label in ("learning curves of skd", "histogram of spike offsets"):
        assert f'<svg role="img" aria-label="{label}"' in text
    assert '<h4 lang="" dir="auto">EAT</h4>' in text  # the browser tells the direction


@pytest.mark.slow
def test_two_pages_are_equal(runs, tmp_path, page):
    """Except for the numbers in identifiers."""

    def plain(text):
        return re.sub(r"figure\d+-", "", text)

    assert plain(page_of(runs, tmp_path / "again.html")[0]) == plain(page[0])


@pytest.mark.slow
def test_text_stays_text(runs, tmp_path):
    """Names and transcripts cannot be trusted: they are text, not markup."""
    shutil.copytree(runs / "skd", tmp_path / "runs" / "<b>bold" / "$x^$")
    (path,) = (tmp_path / "runs").rglob("align.json")
    found = json.loads(path.read_text())
    found["examples"][0]["text"] = "<script>alert(1)</script>"
    found["examples"][0]["teacher"][0]["symbol"] = '"><img src=x onerror=alert(1)>'
    path.write_text(json.dumps(found))
    text, cells = page_of(tmp_path / "runs", tmp_path / "report.html")
    assert text.count("<script>") == 1
    assert "<img src=x" not in text and "<b>bold" not in text
    assert "<b>bold/$x^$/align" in [row[0] for row in cells.rows]


def test_files_of_other_programs_are_left_out(runs, tmp_path, capsys):
    shutil.copytree(runs, tmp_path / "runs")
    for name, text in (("a/summary.json", "{}"), ("b/align.json", "[]"), ("c/hydra_train.log", "x")):
        (tmp_path / "runs" / name).parent.mkdir()
        (tmp_path / "runs" / name).write_text(text)
    found = read_runs(tmp_path / "runs")
    assert (len(found.trained), len(found.decoded), len(found.aligned)) == (1, 2, 1)
    told = capsys.readouterr().err
    assert told.count("left out: ") == 3
    for name in ("a/summary.json", "b/align.json", "c/hydra_train.log"):
        assert name in told


def test_missing_audio_is_named(runs, tmp_path, capsys):
    """A folder may have been copied in part."""
    shutil.copytree(runs, tmp_path / "runs")
    audio = next((tmp_path / "runs").rglob("example-0.flac"))
    audio.unlink()
    arguments = [str(tmp_path / "runs"), "--out", str(tmp_path / "report.html")]
    assert run_command("fairseq_skd.report", lambda: report.main(arguments)) == 2
    assert capsys.readouterr().err == f"fairseq_skd.report: [Errno 2] No such file or directory: '{audio}'\n"
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("folder", "out", "sentence"),
    [
        ("nowhere", "r.html", "nowhere is not a folder: give the folder that holds the runs"),
        ("empty", "r.html", r"holds no hydra_train\.log, no summary\.json"),
        ("empty", ".", r"is a folder: give .*report\.html$"),
    ],
)
def test_mistakes(tmp_path, folder, out, sentence):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=sentence):
        report.main([str(tmp_path / folder), "--out", str(tmp_path / out)])


def test_missing_libraries_get_one_sentence(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run_command("fairseq_skd.report", lambda: report.main([str(runs), "--out", str(tmp_path / "r.html")])) == 2
    assert "the report needs jinja2 and matplotlib" in capsys.readouterr().err


def test_inline_svg_follows_the_page():
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1], label="a")
    figure.axes[0].legend()
    text = inline_svg(figure, 'say "so"')
    assert text.startswith('<svg role="img" aria-label="say &#34;so&#34;"')
    assert "currentColor" in text and "#000000" not in text
    assert "xmlns" not in text and "<metadata>" not in text
    assert "fill: #ffffff" not in text  # no background


def test_the_templates_are_part_of_the_package():
    import configparser

    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[2] / "setup.cfg")
    patterns = config["options.package_data"]["fairseq_skd.reporting"].split(", ")
    folder = Path(report.__file__).parent / "reporting"
    data = {path.name for path in folder.iterdir() if path.is_file() and path.suffix != ".py"}
    assert data == {path.name for pattern in patterns for path in folder.glob(pattern)}


def test_long_steps_show_their_progress(runs, at_once, capsys):
    render(read_runs(runs), "runs")
    said = capsys.readouterr().err
    for step in ("reading logs: 1", "reading transcripts: 2", "drawing curves: 1", "drawing analyses: 1"):
        assert f"{step} of {step[-1]} (100 %)" in said
