"""The page of a sweep of more runs than a plot can name."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lth_sparse.report import plots, sweep
from lth_sparse.storage.arms import TICKET
from lth_sparse.storage.summary import SummaryRow, Swept


@pytest.mark.parametrize(("count", "named"), [(plots.MOST_NAMED_RUNS, True), (2000, False)])
def test_curves_are_named_where_their_names_have_room(tmp_path: Path, count: int, named: bool) -> None:
    rows = [SummaryRow(n, TICKET.name, 3, 0.8**n, 0.9, 0.01, 0.0, 0.01, "matching dense", 1.5) for n in range(3)]
    done = [Swept(f"run {number}", f"run-{number}", rows, "") for number in range(count)]
    sweep.write(tmp_path, done, count, "python -m lth_sparse.sweep sweep.yaml")
    page = (tmp_path / "report.html").read_text()
    assert ("too many runs to name them here" in page) != named
    assert page.count('<th scope="row">') == count
    width, height = Image.open(tmp_path / "plots" / "accuracy.png").size
    assert (height > 2 * width) == named
