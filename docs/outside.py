"""Add ``RESULTS.md`` to the site; links to other files become names (a mkdocs hook)."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_CHECKOUT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\[([^\]]+)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of results, and the figures that it shows."""
    text = (_CHECKOUT / "RESULTS.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "results.md", content=text))
    for figure in sorted((_CHECKOUT / "results").rglob("*.png")):
        name = figure.relative_to(_CHECKOUT).as_posix()
        if name in text:
            files.append(File.generated(config, name, abs_src_path=str(figure)))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Write links as the site has them. In a page, they start from its folder in the checkout."""
    folder = "" if page.file.src_uri == "results.md" else "docs"

    def replace(found: re.Match[str]) -> str:
        text, target, anchor = found.groups()
        file = posixpath.normpath(posixpath.join(folder, target))
        place = "results.md" if file == "RESULTS.md" else file.removeprefix("docs/")
        if files.get_file_from_path(place):
            return f"[{text}]({place}{anchor or ''})"
        return text if file in text else f"{text} (`{file}`)"

    return _LINK.sub(replace, markdown)
