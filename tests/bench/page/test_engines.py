"""The page's table of engines: every side of the file, what was set for it, and the rows in which ours is slower."""

from __future__ import annotations

from typing import Any

import pytest

from bench.page import engines
from tests.bench.page.test_peers import HERE


@pytest.fixture
def found() -> dict[str, Any]:
    def row(name: str, over: float, must: float | None = None, even: bool = True) -> dict[str, Any]:
        case = {"case": f"net-{even}", "network": "net", "batch": 1, "sparsity": 0.9, "even": even}
        goal = {"must": must, "aim": must and 2 * must, "verdict": must and ("holds" if over >= must else "MISSED")}
        times = {"p50_milliseconds": 4 * over, "p95_milliseconds": 5 * over}
        return case | {"name": name, "over_ours": over, **times, **goal}

    rows = [row("lth_sparse", 1), row("PyTorch", 2.5), row("DeepSparse", 0.8, must=0.9)]
    rows.append(row("lth_sparse", 1, even=False))
    return {"measured_on": HERE, "date": "2026-12-01", "command": "a command", "rows": rows}


def test_a_case_has_a_row_and_every_engine_a_column(found: dict[str, Any]) -> None:
    text = "\n".join(engines.section("engines-some.json", found).text())
    assert "| network | batch | pruned | ms, p50 | p95 | PyTorch | DeepSparse |" in text
    assert "| net | 1 | 90 % | 4.00 | 5.00 | 2.50 | 0.80 |" in text
    assert "| net | 1 | 90 %, unevenly | 4.00 | 5.00 |  |  |" in text
    assert "| net | 1 | 90 % | DeepSparse | 0.80 | 0.9 | 1.8 | MISSED |" in text


def test_an_engine_that_is_faster_is_among_the_losing_rows(found: dict[str, Any]) -> None:
    *_, row = engines.losing_table(found)
    assert row == "| net | 1 | 90 % | DeepSparse | 0.800 |"
    found["rows"] = found["rows"][:2]
    assert engines.losing_table(found) == ["None."]


def test_the_front_page_has_the_worst_and_the_best_case_beside_deepsparse(found: dict[str, Any]) -> None:
    best = {**found["rows"][2], "network": "other", "batch": 16, "over_ours": 1.5}
    [line] = engines.headline({**found, "rows": [*found["rows"], best]})
    assert line.startswith(
        "- **0.80 to 1.50 times DeepSparse's speed** (net, batch 1; other, batch 16), above 1 in 1 of 2"
    )
    assert engines.headline({**found, "rows": found["rows"][:2]}) == []
