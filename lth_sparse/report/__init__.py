"""The report of a run: plots as PNG files and one HTML page that holds everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lth_sparse.report import document
from lth_sparse.report.gallery import pictures
from lth_sparse.report.html import page
from lth_sparse.storage.record import Record


def write(out: Path, info: dict[str, Any], record: Record) -> None:
    """Writes `out/plots/*.png` and `out/report.html` for a run that is finished, running or has just begun.

    `info` is the content of the run's `config.json`. The same arguments give the same bytes.
    """
    gallery = pictures(info, record)
    document.write(out, page(info, record, gallery), gallery)
