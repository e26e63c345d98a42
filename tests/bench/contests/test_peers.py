"""The contest with peers: who is timed, who is not, and what the rows of three repeats come to."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.cases.peers import PEER_CASES, PeerCase
from bench.contests import peer_ratios, peers
from bench.sides import training_peers
from bench.sides.peers import PEERS, Peer
from lth_sparse.plans.layer_spec import LayerSpec

CASE = PeerCase("linear", LayerSpec("linear", 32, 16), (4, 32), (0.5, 0.9), trains=True)


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "OURS", "dense")
    monkeypatch.setattr(peers, "SETTLE", 0.0)
    monkeypatch.setattr(peers, "PEERS", {"torch CSR": PEERS["torch CSR"]})


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are bound to cores on Linux alone")
def test_every_side_has_a_row_for_each_repeat_quiet_and_busy() -> None:
    rows = peers.measure(CASE, seconds=0.0, repeats=2)
    assert [(row["repeat"], row["busy"], row["sparsity"], row["against"]) for row in rows] == [
        (repeat, busy, sparsity, against)
        for repeat in (0, 1)
        for busy in (False, True)
        for sparsity in (0.5, 0.9)
        for against in ("dense PyTorch, contiguous", f"torch CSR at {sparsity:.0%}")
    ]
    assert all(row["by_median"] > 0 for row in rows)


def test_a_peer_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(spec: LayerSpec, weight: Tensor) -> training_peers.Trained:
        return training_peers.torch_csr(spec, 1.001 * weight)

    monkeypatch.setattr(peers, "PEERS", {"wrong": Peer(trained=wrong)})
    with pytest.raises(AssertionError, match=r"wrong at 50%, forward: relative error 0\.001 against float64"):
        peers.sides(CASE)


def test_a_layer_that_a_peer_does_not_have_is_not_asked_of_it() -> None:
    convolution = replace(CASE, spec=LayerSpec("conv2d", 4, 4, (3, 3)), input_shape=(2, 4, 5, 5))
    assert (peers.installed(CASE), peers.installed(convolution)) == (["torch CSR"], [])


def test_gradients_of_padded_and_of_csr_values_are_those_of_live_weights() -> None:
    csr = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).to_sparse_csr()
    assert peers._live(csr).tolist() == [1.0, 2.0, 3.0]
    assert peers._live(torch.tensor([1.0, 0.0, 2.0, 3.0, 0.0])).tolist() == [1.0, 2.0, 3.0]


def row(name: str, by_median: float, busy: bool = False, sparsity: float = 0.9) -> dict[str, Any]:
    case = next(str(case) for case in PEER_CASES if case.quiet and case.trains)
    against = name if name == "dense PyTorch, contiguous" else f"{name} at {sparsity:.0%}"
    return {"case": case, "sparsity": sparsity, "against": against, "busy": busy, "by_median": by_median}


def test_a_ratio_is_the_median_of_its_repeats_and_dense_is_no_peer() -> None:
    rows = [row("Some", value) for value in (1.6, 9.0, 1.4)] + [row("dense PyTorch, contiguous", 0.5)]
    rows += [row("Other", 1.7), row("Other", 1.05, busy=True)]
    ratios = peer_ratios.of(rows)
    assert {(each.name, each.busy): each.value for each in ratios} == {
        ("Some", False): 1.6, ("dense PyTorch", False): 0.5, ("Other", False): 1.7, ("Other", True): 1.05,
    }  # fmt: skip
    quiet, busy = peer_ratios.lowest(ratios)
    assert (quiet.ratio.name, quiet.ratio.value, quiet.verdict) == ("Some", 1.6, "aim reached")
    assert (busy.ratio.name, busy.ratio.value, busy.verdict) == ("Other", 1.05, "MISSED")
