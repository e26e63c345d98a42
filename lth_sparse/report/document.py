"""What every page of ours is: one HTML document that needs nothing beside it, and the plots that it shows as files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from lth_sparse.report.gallery import Picture
from lth_sparse.storage.files import write_atomically

DOCUMENT = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<link rel="icon" href="data:,">
<style>
$style</style>
</head>
<body>
<main>
<header>
<p class="quiet">$status</p>
<h1>$headline</h1>
$opening
</header>
$sections
</main>
</body>
</html>
""")

Section = tuple[str, str, str]
"""The id of a section, its heading, and what it holds, as HTML."""


def document(title: str, status: str, headline: str, opening: str, sections: Sequence[Section]) -> str:
    """A page. `title`, `status` and `headline` are plain text; `opening`, below the headline, is HTML."""
    return DOCUMENT.substitute(
        title=escape(title),
        style=files("lth_sparse.report").joinpath("style.css").read_text(encoding="utf-8"),
        status=escape(status),
        headline=escape(headline),
        opening=opening,
        sections="\n".join(
            f'<section id="{name}">\n<h2>{heading}</h2>\n{content}\n</section>' for name, heading, content in sections
        ),
    )


def plots(gallery: Sequence[Picture], heading: str = "Plots") -> Section:
    """The section of the plots."""
    shown = "\n".join(map(_figure, gallery))
    return "plots", heading, f'<div class="plots">\n{shown}\n</div>'


def again(command: str) -> Section:
    """The section that says how the page was made."""
    return "again", "Run it again", f"<pre>{escape(command)}</pre>"


def table(label: str, head: str, rows: str) -> str:
    """A table that scrolls by itself where the page is narrower. `head`, `rows`: lines of HTML."""
    return f"""<div class="scroll" role="region" aria-label="{label}" tabindex="0">
<table class="rounds">
<thead>
{head}
</thead>
<tbody>
{rows}
</tbody>
</table>
</div>"""


def write(out: Path, page: str, gallery: Sequence[Picture]) -> None:
    """`out/report.html`, and `out/plots/*.png` of what was drawn."""
    for picture in gallery:
        if picture.png is not None:
            write_atomically(out / "plots" / f"{picture.name}.png", picture.png)
    write_atomically(out / "report.html", page.encode(errors="replace"))


def _figure(picture: Picture) -> str:
    title, caption = escape(picture.title), escape(picture.caption)
    if picture.png is None:
        return f'<figure><h3>{title}</h3><p class="quiet">{caption}</p></figure>'
    # Width and height are in the PNG header; giving them keeps the page from jumping while it is drawn.
    width, height = (int.from_bytes(picture.png[at : at + 4], "big") for at in (16, 20))
    data = base64.b64encode(picture.png).decode()
    return f"""<figure><h3>{title}</h3>
<img src="data:image/png;base64,{data}" width="{width}" height="{height}" alt="{escape(picture.alt)}">
<figcaption>{caption}</figcaption></figure>"""
