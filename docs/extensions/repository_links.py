"""Every relative link of the repository's documents leads to a file, and to a heading of it where it names one.

As a Sphinx extension it warns of each that does not, which fails `make docs`: Sphinx itself sees the pages under docs/
alone. What they link to elsewhere in the repository becomes a download.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
_FENCED = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(
    r"\]\((?P<inline>[^)\s]+)[^)]*\)|(?:src|srcset|href)=\"(?P<html>[^\"\s]+)\"|^\[[^]]+\]:\s*(?P<reference>\S+)",
    re.MULTILINE,
)
_HEADING = re.compile(r"^#{1,6}[ \t]+(?P<text>.+?)[ \t]*$", re.MULTILINE)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def documents(root: Path = ROOT) -> list[Path]:
    """The documents that a reader meets, whose links are checked."""
    return [
        root / "README.md",
        root / "CONTRIBUTING.md",
        root / "csrc/README.md",
        *sorted((root / "docs").rglob("*.md")),
    ]


def broken(root: Path = ROOT) -> Iterator[str]:
    """A sentence for each link that leads nowhere."""
    for document in documents(root):
        for target in links(document.read_text()):
            path, _, anchor = unquote(target).partition("#")
            file = document.parent / path if path else document
            where = f"{document.relative_to(root)}: the link {target}"
            if not file.exists():
                yield f"{where} leads to no file"
            elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text()):
                yield f"{where} leads to no heading"


def links(text: str) -> list[str]:
    """The targets of a Markdown document's links and pictures that do not leave the repository."""
    found = (
        link["inline"] or link["html"] or link["reference"]
        for link in _LINK.finditer(_CODE.sub("", _FENCED.sub("", text)))
    )
    return [target for target in found if not _ELSEWHERE.match(target)]


def anchors(text: str) -> set[str]:
    """The names of its headings, as GitHub makes them: the second of the same name ends in -1, and so on."""
    made: set[str] = set()
    seen: dict[str, int] = {}
    for heading in _HEADING.finditer(_FENCED.sub("", text)):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading["text"]).lower()
        name = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        made.add(f"{name}-{seen[name]}" if name in seen else name)
        seen[name] = seen.get(name, 0) + 1
    return made


def with_downloads(text: str, folder: Path, site: Path) -> str:
    """The page in `folder`, its links to Markdown outside of `site` in MyST's words for a file to download."""

    def changed(link: re.Match[str]) -> str:
        path = link["path"]
        outside = not _ELSEWHERE.match(path) and not (folder / path).resolve().is_relative_to(site)
        return f"](path:{path})" if outside else link[0]

    return re.sub(r"\]\((?P<path>[^)#\s]+\.md)(#[^)\s]*)?\)", changed, text)


def setup(app: Any) -> dict[str, Any]:
    """Tells Sphinx to look before it builds, and how to read a page."""
    from sphinx.util import logging

    def warn(_: Any) -> None:
        for sentence in broken():
            logging.getLogger(__name__).warning(sentence)

    def read(app: Any, page: str, source: list[str]) -> None:
        site = Path(app.srcdir)
        source[0] = with_downloads(source[0], (site / page).parent, site)

    app.connect("builder-inited", warn)
    app.connect("source-read", read)
    return {"parallel_read_safe": True}
