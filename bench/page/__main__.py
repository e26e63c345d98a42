"""`python -m bench.page`: docs/results/README.md, its charts, the figures of README.md and docs/*.md, the badges."""

from __future__ import annotations

import sys

from bench.page import build, sources
from bench.page.badges import badges
from bench.page.charts import svg
from bench.page.sources import PAGE, ROOT


def main() -> int:
    """Writes what has changed, and removes charts that the page no longer shows."""
    measured = sources.read()
    parts = build.sections(measured)
    files = {PAGE / chart.file: svg(chart) for chart in build.charts(parts)}
    files |= {path: text.encode() for path, text in badges().items()}
    (ROOT / PAGE / "plots").mkdir(exist_ok=True)
    for old in (ROOT / PAGE / "plots").glob("*.svg"):
        if old.relative_to(ROOT) not in files:
            old.unlink()
    texts = {build.PAGE_TEXT: build.text(parts)} | build.documents(measured)
    files |= {path: text.encode() for path, text in texts.items()}
    for path, content in files.items():
        (ROOT / path).write_bytes(content)
    print(f"{len(build.charts(parts))} charts, {', '.join(map(str, texts))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
