"""Others' layers compute what masked dense PyTorch does, or say why they cannot be run."""

from __future__ import annotations

import pytest
import torch

from bench.sides.peers import PEERS, Peer
from lth_sparse import reference
from lth_sparse.plans.layer_spec import LayerSpec


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (LayerSpec("conv2d", 5, 6, (3, 3), (2, 1), (1, 0), (1, 2)), (4, 5, 8, 9)),
        (LayerSpec("linear", 20, 7), (4, 20)),
    ],
    ids=["conv2d", "linear"],
)
def test_a_peer_computes_the_layer(name: str, spec: LayerSpec, shape: tuple[int, ...]) -> None:
    if reason := PEERS[name].missing():
        pytest.skip(reason)
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(shape, generator=generator), torch.randn(spec.weight_shape, generator=generator)
    mask = torch.rand(weight.shape, generator=generator) < 0.3
    found = PEERS[name].side(spec, mask, x, weight * mask)["forward"]()
    torch.testing.assert_close(found, reference.forward(x, weight[mask], None, mask, spec))


def test_a_peer_that_is_not_installed_says_how_to() -> None:
    peer = Peer(PEERS["torch CSR"].side, ("torch", "no_such_module"), "pip install it")
    assert peer.missing() == "no_such_module not installed: pip install it"
