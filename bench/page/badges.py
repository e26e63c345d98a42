"""The badges of README.md, made of what the project's own files say: small pictures that no other host has to serve."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from bench.page.sources import PAGE, ROOT

_HEIGHT = 20
_LETTER = 6.6
"""Width of a letter at 11 pixels, on average; `textLength` makes it so in any font."""
_MARGIN = 12


def badges(root: Path = ROOT) -> dict[Path, str]:
    """Path from the root -> SVG. Raises ValueError where a file no longer says what a badge is about."""
    project, requirements = (root / "pyproject.toml").read_text(), (root / "requirements.txt").read_text()
    said = {
        "python": _found('^requires-python = ">=([0-9.]+)"', project) + " or newer",
        "pytorch": _found("^torch>=([0-9.]+)", requirements) + " or newer",
        "cpu": ", ".join(_instruction_sets(root)),
        "gpu": "NVIDIA, Ampere or newer",
        "licence": _found('^license = "(.+)"', project),
    }
    return {PAGE / "plots" / f"badge-{name}.svg": _svg(name, value) for name, value in said.items()}


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise ValueError(f"no badge can be made: {pattern!r} is nowhere in its file")
    return found[1]


def _instruction_sets(root: Path) -> list[str]:
    """As the C++ kernels name them, in words."""
    words = {"avx512": "AVX-512", "avx2": "AVX2"}
    names = re.findall(r'\{"(\w+)", \{', (root / "csrc" / "cpu" / "dispatch.cpp").read_text())
    return [words.get(name, name) for name in names]


def _svg(label: str, value: str) -> str:
    left, right = (round(len(text) * _LETTER) + _MARGIN for text in (label, value))

    def words(text: str, start: int, width: int) -> str:
        return (
            f'<text x="{start + width / 2}" y="14" textLength="{width - _MARGIN}" '
            f'lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
        )

    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{_HEIGHT}" role="img" '
        f'aria-label="{escape(label)}: {escape(value)}">'
        f'<rect width="{left + right}" height="{_HEIGHT}" rx="3" fill="#0b6285"/>'
        f'<path d="M3 0h{left - 3}v{_HEIGHT}H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z" fill="#4a4a4a"/>'
        f'<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f"{words(label, 0, left)}{words(value, left, right)}</g></svg>\n"
    )
