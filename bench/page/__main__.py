"""`python -m bench.page`: writes docs/results/README.md, its charts, and the figures of README.md."""

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
    files |= {
        build.PAGE_TEXT: build.text(parts).encode(),
        build.README: build.readme_text(measured).encode(),
    }
    for path, content in files.items():
        (ROOT / path).write_bytes(content)
    print(f"{build.PAGE_TEXT}, {len(files) - 2} charts, {build.README}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
