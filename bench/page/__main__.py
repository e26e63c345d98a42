"""`python -m bench.page`: writes docs/results/README.md, its charts, and the figures of README.md and docs/*.md."""

from __future__ import annotations

import sys

from bench.page import build, sources
from bench.page.charts import svg
from bench.page.sources import PAGE, ROOT


def main() -> int:
    """Writes what has changed, and removes charts that the page no longer shows."""
    measured = sources.read()
    parts = build.sections(measured)
    files = {PAGE / chart.file: svg(chart) for chart in build.charts(parts)}
    (ROOT / PAGE / "plots").mkdir(exist_ok=True)
    for old in (ROOT / PAGE / "plots").glob("*.svg"):
        if old.relative_to(ROOT) not in files:
            old.unlink()
    charts = len(files)
    texts = {build.PAGE_TEXT: build.text(parts)} | build.documents(measured)
    files |= {path: text.encode() for path, text in texts.items()}
    for path, content in files.items():
        (ROOT / path).write_bytes(content)
    print(f"{charts} charts, {', '.join(map(str, texts))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
