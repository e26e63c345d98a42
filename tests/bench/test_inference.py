"""Whole networks for inference: `python -m bench.inference`."""

import pytest
import torch

from bench import inference
from lth_sparse.inference import engine

pytestmark = pytest.mark.skipif(bool(engine.refuses()), reason=engine.refuses())


def test_all_sides_have_the_same_outputs_and_a_line_each(monkeypatch, capsys):
    monkeypatch.setattr(inference, "SECONDS", 0.01)
    monkeypatch.setattr(inference, "SIZE", 32)
    torch.manual_seed(0)
    with torch.no_grad():
        outputs = {name: side["forward"]() for name, side in inference.sides("resnet18", 2).items()}
    for each in outputs.values():
        torch.testing.assert_close(each, outputs["dense, contiguous"], rtol=1e-4, atol=1e-5)
    monkeypatch.setattr("sys.argv", ["bench.inference", "resnet18"])
    inference.main()
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.startswith("resnet18, batch 1, 90% pruned")
    assert [line.split("  ")[0] for line in lines] == list(outputs)
