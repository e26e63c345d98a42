"""What torchrun starts in each process: runs by their command lines, one after the other, and what is to be computed by
several processes; each process leaves what came out.

`python several_processes.py SCENARIOS.json DIRECTORY`: {name: arguments of lth_sparse.run}.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

import lth_sparse as lth
from lth_sparse import report, run
from lth_sparse.lottery.data_parallel import DataParallelNetwork, gradient_bytes
from lth_sparse.lottery.held_masks import HeldMasks
from lth_sparse.nn.synchronised_norm import synchronise
from lth_sparse.system import processes, torchrun

IMAGES = 7
"""Of a batch, which two processes cannot share alike."""


def norm_and_images(kind: str) -> tuple[nn.Module, torch.Tensor]:
    """A BatchNorm and a batch of inputs with a mean far from 0, seeded."""
    generator = torch.Generator().manual_seed(0)
    size = {"1d": (IMAGES, 5), "2d": (IMAGES, 5, 3, 4)}[kind]
    norm = {"1d": nn.BatchNorm1d, "2d": nn.BatchNorm2d}[kind](5)
    return norm, torch.randn(size, generator=generator) * torch.arange(1, 6).view(1, 5, *(1,) * (len(size) - 2)) + 20


def normalised(norm: nn.Module, images: torch.Tensor, share: float = 1.0) -> dict[str, torch.Tensor]:
    """Output, gradients and statistics after a step of a loss that is a mean over images, which counts `share`."""
    images = images.clone().requires_grad_()
    output = norm(images)
    (output.flatten(1).pow(3).sum(1).mean() * share).backward()
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in norm.named_parameters()}
    return {"output": output.detach(), "gradient of input": images.grad, **gradients, **dict(norm.named_buffers())}


def travelled() -> dict[str, int]:
    """Bytes that DistributedDataParallel sends in a step of sparse layers, and what the record would say of them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    masks = {name: torch.rand(model.get_submodule(name).weight.shape) < 0.1 for name in ("0", "2")}
    lth.sparsify(model, masks, "cpp")
    network = DataParallelNetwork(HeldMasks(model, masks), (0, "ticket"))
    network._wrapped = network._wrap()
    sent: list[int] = []

    def send(_, bucket):  # Its annotations would be looked at.
        sent.append(bucket.buffer().numel() * bucket.buffer().element_size())
        return torch.distributed.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda f: f.value()[0])

    network._wrapped.register_comm_hook(None, send)
    network.loss(torch.ones(2, 20), torch.zeros(2, dtype=torch.long), 4).backward()
    return {"sent": sum(sent), "said": gradient_bytes(model)}


def computed() -> dict[str, Any]:
    found: dict[str, Any] = {"travelled": travelled()}
    for kind in ("1d", "2d"):
        norm, images = norm_and_images(kind)
        found[kind] = normalised(synchronise(norm), images[processes.part(IMAGES)], processes.share(IMAGES))
    return found


def main() -> None:
    report.pictures = lambda info, record: []  # Which take most of a tiny run's time.
    scenarios, directory, rank = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), os.environ["RANK"]
    with torchrun.together():
        torch.save(computed(), directory / f"computed-{rank}.pt")
    ended = {}
    for name, arguments in scenarios.items():
        out, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            status = run.main(arguments)
        ended[name] = {"status": status, "out": out.getvalue(), "error": error.getvalue()}
    (directory / f"ended-{rank}.json").write_text(json.dumps(ended))


if __name__ == "__main__":
    main()
