"""All-reduce of gradients: bytes and least times by formula, and the bytes that two processes hand to it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from bench.scale.memory import NUMBER, SMALL

WORLD = 2
"""Processes of the check."""


@dataclass(frozen=True)
class Link:
    """Bytes a second in one direction, and seconds until a message arrives."""

    speed: float
    latency: float


@dataclass(frozen=True)
class Cluster:
    """Nodes of `node` GPUs: `inside` a node, and `between` nodes, where `cards` network cards share the work."""

    name: str
    node: int
    inside: Link
    between: Link
    cards: int


NVLINK = Link(450e9, 2e-6)
CLUSTERS = (
    Cluster("8 GPUs a node by NVLink, 400 Gb/s InfiniBand a GPU", 8, NVLINK, Link(50e9, 5e-6), 8),
    Cluster("8 GPUs a node by NVLink, 25 Gb/s Ethernet a node", 8, NVLINK, Link(3.125e9, 30e-6), 1),
)
"""Assumptions: speeds of data sheets, latencies of the usual size."""
GPUS = (8, 64, 512)
BATCH, IMAGES_A_SECOND = 256, 2500
"""An assumption too: of ResNet-50 on one GPU in mixed precision, which is 102 ms a step without the all-reduce."""


def gradient_bytes(model: nn.Module) -> int:
    """What a step has to reduce."""
    return NUMBER * sum(each.numel() for each in model.parameters() if each.requires_grad)


def ring_bytes(gradients: int, gpus: int) -> float:
    """What each of so many GPUs in a ring sends: 2 (N - 1) / N of its gradients."""
    return 2 * (gpus - 1) / gpus * gradients


def ring_seconds(gradients: float, gpus: int, link: Link) -> float:
    """2 (N - 1) messages, one after the other, of an N-th of the gradients each."""
    return 2 * (gpus - 1) * (link.latency + gradients / gpus / link.speed)


def seconds(gradients: int, gpus: int, cluster: Cluster) -> float:
    """Rings inside each node; then each GPU's part of it between the nodes, the cards of a node at once."""
    inside, nodes = min(gpus, cluster.node), gpus // cluster.node
    found = ring_seconds(gradients, inside, cluster.inside)
    return found + ring_seconds(gradients / cluster.cards, nodes, cluster.between) if nodes > 1 else found


def share(took: float) -> float:
    """Of a step, where nothing else is done meanwhile."""
    return took / (took + BATCH / IMAGES_A_SECOND)


def counted(make: Callable[[], nn.Module]) -> int:
    """Bytes that the first of two processes of DistributedDataParallel (gloo) hands over in a step."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_process, (make, Path(folder)), nprocs=WORLD)
        return int((Path(folder) / "0").read_text())


def _process(rank: int, make: Callable[[], nn.Module], folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD)
    model, total = DistributedDataParallel(make()), [0]

    # Without annotations: they are strings here, which DistributedDataParallel refuses.
    def count(_, bucket):  # type: ignore[no-untyped-def]
        total[0] += bucket.buffer().nbytes
        reduced = distributed.all_reduce(bucket.buffer(), async_op=True).get_future()
        return reduced.then(lambda future: future.value()[0] / WORLD)

    model.register_comm_hook(None, count)
    model(torch.randn(2, 3, SMALL, SMALL)).square().mean().backward()
    (folder / str(rank)).write_text(str(total[0]))
    distributed.destroy_process_group()
