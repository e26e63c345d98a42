"""A followed network whose convolutions run in the engine, segment by segment; between them PyTorch goes on."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from lth_sparse.inference.engine import Engine
from lth_sparse.inference.lowering import Lowering, lowers
from lth_sparse.nn.following import module_of
from lth_sparse.nn.sparse_conv2d import SparseConv2d


class Segment(nn.Module):
    """A part of a network that the engine computes."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Tensors [N, C, H, W] to such tensors, in the memory format of the first."""
        outputs = self.engine(list(inputs))
        if inputs[0].is_contiguous() or not inputs[0].is_contiguous(memory_format=torch.channels_last):
            return outputs
        return [each.contiguous(memory_format=torch.channels_last) for each in outputs]


def in_segments(network: fx.GraphModule, example: Sequence[Tensor]) -> fx.GraphModule | None:
    """The network for inputs [any N, ...] of the other sizes of `example`; None where the engine has no part in it."""
    made = fx.GraphModule(network, copy.deepcopy(network.graph))
    with torch.no_grad():
        ShapeProp(made).propagate(*(each[:1] for each in example))
    segments = [segment for segment in _segments(made) if any(is_pruned(module_of(node, made)) for node in segment)]
    for number, segment in enumerate(segments):
        _replace(made, segment, f"segment_{number}")
    if not segments:
        return None
    made.delete_all_unused_submodules()
    made.recompile()
    return made


def _segments(network: fx.GraphModule) -> list[list[fx.Node]]:
    """Runs of nodes that the engine has."""
    result: list[list[fx.Node]] = [[]]
    for node in network.graph.nodes:
        if lowers(node, network):
            result[-1].append(node)
        elif node.op not in ("placeholder", "get_attr"):
            result.append([])
    return [segment for segment in result if segment]


def is_pruned(module: nn.Module | None) -> bool:
    """Whether it is a convolution that the engine is for."""
    return isinstance(module, SparseConv2d) or (isinstance(module, nn.Conv2d) and bool((module.weight == 0).any()))


def _replace(network: fx.GraphModule, segment: list[fx.Node], name: str) -> None:
    lowering, inside = Lowering(network), set(segment)
    inputs = list(dict.fromkeys(each for node in segment for each in node.all_input_nodes if each not in inside))
    for node in inputs:
        _, channels, height, width = node.meta["tensor_meta"].shape
        lowering.values[node] = lowering.program.input(node.name, (channels, height, width))
    for node in segment:
        lowering.add(node)
    outputs = [node for node in segment if any(user not in inside for user in node.users)]
    for node in outputs:
        lowering.program.output(lowering.values[node])
    network.add_submodule(name, Segment(lowering.program.made()))
    with network.graph.inserting_after(segment[-1]):
        computed = network.graph.call_module(name, tuple(inputs))
    after = computed
    for place, node in enumerate(outputs):
        with network.graph.inserting_after(after):
            after = network.graph.call_function(operator.getitem, (computed, place))
        after.meta = dict(node.meta)
        node.replace_all_uses_with(after, delete_user_cb=lambda user: user not in inside)
    for node in reversed(segment):
        network.graph.erase_node(node)
