"""The feed-forward layers of a transformer encoder layer, pruned to 90 % and made sparse by masks given by name.

Attention stays dense. In eval mode without gradients a dense nn.TransformerEncoderLayer takes its fast path; one with
sparse layers calls them. About 10 seconds on two cores, 5 with --quick; no network needed.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import lth_sparse as lth

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--sparsity", type=float, default=0.9, help="fraction of the feed-forward weights that is pruned")
parser.add_argument("--quick", action="store_true", help="fewer repetitions")
options = parser.parse_args()

torch.manual_seed(0)
tokens = torch.randn(8, 64, 384)  # [images, tokens, features] of ViT-S, with 1536 neurons in between
repetitions = 5 if options.quick else 20
dense = nn.TransformerEncoderLayer(384, 6, 1536, dropout=0.0, batch_first=True)
masks = {}
for name in ("linear1", "linear2"):
    weight = dense.get_submodule(name).weight
    masks[name] = weight.abs() > weight.abs().quantile(options.sparsity)
    weight.data *= masks[name]
sparse = lth.sparsify(copy.deepcopy(dense), masks)


def step(model: nn.Module) -> Tensor:
    model.zero_grad()
    output = model(tokens)
    output.square().mean().backward()
    return output.detach()


def inference(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(tokens)


def compare(title: str, call: Callable[[nn.Module], Tensor]) -> None:
    error = float((call(sparse) - call(dense)).abs().max() / call(dense).abs().max())
    times: dict[nn.Module, list[float]] = {dense: [], sparse: []}
    for _ in range(3 + repetitions):
        for model, measured in times.items():
            began = time.perf_counter()
            call(model)
            measured.append(1e3 * (time.perf_counter() - began))
    of_dense, of_sparse = (statistics.median(measured[3:]) for measured in times.values())
    print(f"{title:26}{error:>12.1e}{of_dense:>12.2f}{of_sparse:>12.2f}")


live, whole = sum(int(mask.sum()) for mask in masks.values()), sum(mask.numel() for mask in masks.values())
print(f"{live:,} of {whole:,} feed-forward weights are live")
print(f"{'':26}{'difference':>12}{'dense, ms':>12}{'sparse, ms':>12}")
compare("forward and backward", step)
dense.eval(), sparse.eval()
compare("eval, without gradients", inference)
print(f"Largest difference over largest output; the sides in turn, after 3 calls to warm up; medians of {repetitions}.")
