"""The page's table of peers: every side of the file, and the rows in which ours is slower."""

from __future__ import annotations

from typing import Any

import pytest

from bench.cases.peers import PEER_CASES
from bench.page import peers

HERE = {
    "device": "cpu", "processor": "Some", "processor_family": "Vendor family 1 model 2", "threads": 2,
    "platform": "Linux", "allocator": "kept", "torch": "2", "python": "3", "lth_sparse": "0", "commit": "abc",
}  # fmt: skip


@pytest.fixture
def found() -> dict[str, Any]:
    """Ours beside dense PyTorch and one peer, which is faster while a core is busy."""
    case = next(str(case) for case in PEER_CASES if case.trains and case.quiet)
    rows = [
        {"case": case, "sparsity": 0.9, "against": against, "busy": busy, "repeat": 0, "by_median": value}
        for busy, values in ((False, (4.0, 1.6)), (True, (5.0, 0.8)))
        for against, value in zip(("dense PyTorch, contiguous", "Some Peer at 90%"), values, strict=True)
    ]
    return {"measured_on": HERE, "date": "2026-11-30", "command": "a command", "rows": rows}


def test_every_side_has_a_column_quiet_and_busy(found: dict[str, Any]) -> None:
    text = "\n".join(peers.section("peers-some.json", found).text())
    assert "CPU kernels beside their peers on Some (family 1 model 2)" in text
    assert "| layer | sparsity | dense PyTorch | Some Peer |" in text
    assert "| linear, 4096 to 256, 128 rows | 90 % | 4.0 / 5.0 | 1.60 / 0.80 |" in text
    assert "core 0 busy: the fastest peer took at least 0.80 of our time (Some Peer, linear, 4096 to 256" in text


def test_a_peer_that_is_faster_is_among_the_losing_rows(found: dict[str, Any]) -> None:
    *_, row = peers.losing_table(found)
    assert row == "| linear, 4096 to 256, 128 rows | training | 90 % | Some Peer | core 0 busy | 0.800 |"
    for each in found["rows"]:
        each["by_median"] = 1.0
    assert peers.losing_table(found) == ["None."]
