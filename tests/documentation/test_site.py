"""Build the site: every link and anchor resolves, and no page needs the network."""

import html.parser
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation.pages import REPOSITORY

pytest.importorskip("mkdocs", reason="the extra docs is not installed: it needs Python 3.11 or later")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return folder


class Addresses(html.parser.HTMLParser):
    """What a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("script", "img", "iframe"):
            self.loaded.append(values.get("src") or "")
        if tag == "link" and values.get("rel") != "canonical":
            self.loaded.append(values.get("href") or "")


@pytest.mark.slow
def test_a_page_loads_only_files_of_the_site(site: Path) -> None:
    pages = [page for page in site.glob("*.html") if page.name != "404.html"]
    assert len(pages) > 10
    for page in pages:
        found = Addresses()
        found.feed(page.read_text(encoding="utf-8"))
        assert found.loaded
        for address in filter(None, found.loaded):
            assert (page.parent / address.partition("?")[0]).is_file(), f"{page.name}: {address}"
    for style in site.rglob("*.css"):
        assert "url(http" not in style.read_text(encoding="utf-8"), style.name


@pytest.mark.slow
def test_the_python_page_shows_the_interface(site: Path) -> None:
    """mkdocstrings found what the page names."""
    text = (site / "python.html").read_text(encoding="utf-8")
    for name in ("recognizer.load", "recognizer.Recognizer.transcribe", "objective.losses.frame_kl"):
        assert f'id="fairseq_skd.{name}"' in text, name
    assert ":func:" not in text and ":meth:" not in text and "=====" not in text, "reStructuredText"


@pytest.mark.slow
def test_results_are_a_page(site: Path) -> None:
    """With the figures that it shows, and without links to files that the site lacks."""
    assert "<table>" in (site / "results.html").read_text(encoding="utf-8")
