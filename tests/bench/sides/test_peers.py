"""Others' layers compute what masked dense PyTorch does, or say why they cannot be run."""

from __future__ import annotations

import pytest

from bench.cases.peers import PeerCase
from bench.contests import peers as contest
from bench.sides.peers import PEERS
from lth_sparse.plans.layer_spec import LayerSpec

CASES = [
    PeerCase("convolution", LayerSpec("conv2d", 16, 8, (3, 3), (1, 1), (1, 1)), (16, 16, 6, 6), (0.5,), trains=True),
    PeerCase("linear", LayerSpec("linear", 32, 16), (16, 32), (0.5,), trains=True),
    PeerCase(
        "convolution", LayerSpec("conv2d", 5, 6, (3, 3), (2, 1), (1, 0), (1, 2)), (4, 5, 8, 9), (0.7,), trains=False
    ),
    PeerCase("linear", LayerSpec("linear", 20, 7), (1, 20), (0.7,), trains=False),
]


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for name, peer in PEERS.items() for case in CASES if peer.has(case.spec, case.trains)],
    ids=str,
)
def test_a_peer_computes_the_layer(name: str, case: PeerCase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sides are checked against float64 when they are made."""
    if reason := PEERS[name].missing():
        pytest.skip(reason)
    monkeypatch.setattr(contest, "OURS", "dense")
    monkeypatch.setattr(contest, "PEERS", {name: PEERS[name]})
    assert f"{name} at {case.sparsities[0]:.0%}" in contest.sides(case)
