"""Layers in bfloat16 beside dense PyTorch's: `python -m bench.autocast`."""

import pytest
import torch

import lth_sparse
from bench import autocast
from bench.cases.goals import Goal
from bench.cases.layers import Layer
from lth_sparse.plans.layer_spec import LayerSpec

pytestmark = pytest.mark.skipif(
    bool(lth_sparse.backends()["cpp"]), reason=f"cpp cannot be used here: {lth_sparse.backends()['cpp']}"
)
TINY = [
    Layer("linear", LayerSpec("linear", 9, 7), (5, 9), {}, 1),
    Layer("c128", LayerSpec("conv2d", 4, 6, (3, 3), padding=(1, 1)), (3, 4, 5, 5), {}, 1),
]


@pytest.mark.parametrize("layer", TINY, ids=str)
def test_every_side_computes_in_bfloat16_in_its_layout(layer, monkeypatch):
    seen = []
    step = autocast._step

    def note(module, x):
        with torch.autocast("cpu", torch.bfloat16):
            seen.append((x.dtype, module(x).dtype, x.is_contiguous()))
        return step(module, x)

    monkeypatch.setattr(autocast, "_step", note)
    sides = autocast.sides(layer)
    layouts = 1 if layer.spec.kind == "linear" else 2
    assert len(sides) == len(seen) == 2 * layouts
    assert {dtype for entry in seen for dtype in entry[:2]} == {torch.bfloat16}
    assert {contiguous for *_, contiguous in seen} == ({True} if layouts == 1 else {True, False})
    for side in sides.values():
        side["step"]()


@pytest.mark.parametrize(("must", "status"), [(0.0, 0), (1e9, 1)])
def test_who_is_slower_than_must_be_ends_with_1(monkeypatch, capsys, must, status):
    monkeypatch.setattr(autocast, "LAYERS", TINY)
    monkeypatch.setattr(autocast, "SECONDS", 0.01)
    monkeypatch.setattr(autocast, "GOALS", dict.fromkeys(autocast.GOALS, Goal(must, must)))
    assert autocast.main() == status
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["linear", "c128", "c128"]
    assert all(line.endswith("MISSED") == bool(status) for line in lines)
