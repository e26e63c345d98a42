"""Which steps of a followed network the engine computes, and what each becomes in its program."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.utils import _pair

from lth_sparse.inference.engine import Kind, Program, Shape
from lth_sparse.inference.rectified import RectifiedConv2d, ReLUMaxPool2d
from lth_sparse.nn import clamps
from lth_sparse.nn.clamps import RELU, UNBOUNDED, Bounds
from lth_sparse.nn.following import ADDITIONS, bounds_of, module_of, only_user
from lth_sparse.nn.sparse_conv2d import SparseConv2d
from lth_sparse.nn.watched import hooked

DENSEST, FEW_CHANNELS = 0.25, 8
"""With a larger share of live weights, a layer of more channels stays what it is: Winograd's algorithm or dense PyTorch
may be faster."""
ANY_PADDING = 8
"""A wider one is at most the image, as csrc/inference_ops.cpp wants it."""
_BACKENDS = ("auto", "cpp")
"""Who asks for another backend gets it."""

_SAME = (nn.Dropout, nn.Dropout2d, nn.Identity)
_CONVOLUTIONS = (nn.Conv2d, SparseConv2d, RectifiedConv2d)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, ReLUMaxPool2d)


def shape_of(node: Any) -> Shape | None:
    """Channels, height and width of what a node computes; None where it is not a batch of float32 images."""
    meta: Any = node.meta.get("tensor_meta") if isinstance(node, fx.Node) else None
    if not hasattr(meta, "shape") or meta.dtype != torch.float32 or len(meta.shape) != 4:
        return None
    _, *sizes = meta.shape
    return (sizes[0], sizes[1], sizes[2]) if min(sizes) > 0 else None


class Lowering:
    """The program of one segment of `root`'s graph, made node by node. `values` are those of its nodes."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.program = Program()
        self.values: dict[fx.Node, int] = {}
        self._clamped: set[fx.Node] = set()
        self._taken_in: set[fx.Node] = set()

    def add(self, node: fx.Node) -> None:
        """A node for which `lowers` is true, all of whose inputs have values."""
        if node in self._taken_in:
            return
        module = module_of(node, self.root)
        name = node.name
        given = [self.values[each] for each in node.all_input_nodes]
        value = given[0]
        if isinstance(module, _CONVOLUTIONS):
            self._convolution(node, module, value)
        elif type(module) in _SAME:
            self.values[node] = value
        elif type(module) in _POOLS:
            if type(module) is ReLUMaxPool2d and node.all_input_nodes[0] not in self._clamped:
                value = self.program.clamp(f"{name}_relu", value, RELU)
            found = _pool(module, self.program.shapes[value])
            assert found is not None
            kind, window = found
            self.values[node] = self.program.pool(name, kind, value, window, _shape(node))
        elif type(module) is nn.AdaptiveAvgPool2d:
            self.values[node] = self._adaptive(node, value)
        elif node.target in (torch.cat, torch.concat):
            parts = [self.values[each] for each in node.args[0]]  # type: ignore[union-attr, index]
            self.values[node] = self.program.concatenate(name, parts)
        elif node.target in ADDITIONS:
            b = given[-1]
            after = only_user(node)
            bounds = self._bounds(after)
            result = self.program.add(name, value, b, bounds)
            self._give(result, node, after if bounds != UNBOUNDED else None)
        else:
            self.values[node] = self.program.clamp(name, value, bounds_of(node, self.root) or UNBOUNDED)

    def _convolution(self, node: fx.Node, module: Any, value: int) -> None:
        weight, window = weight_of(module), window_of(module)
        assert window is not None
        bounds, added, last = UNBOUNDED, None, node
        if type(module) is RectifiedConv2d:
            bounds = RELU
            self._clamped.add(node)
        else:
            after = only_user(node)
            if after is not None and after.target in ADDITIONS and len(after.all_input_nodes) == 2:
                (other,) = (each for each in after.all_input_nodes if each is not node)
                if other in self.values and shape_of(other) == shape_of(node):
                    added, last = self.values[other], after
            if (bounds := self._bounds(only_user(last))) != UNBOUNDED:
                after = only_user(last)
                assert after is not None
                if type(module_of(after, self.root)) is ReLUMaxPool2d:
                    self._clamped.add(last)
                else:
                    last = after
        result = self.program.convolution(node.name, value, weight, module.bias, window, _shape(node), added, bounds)
        self._give(result, node, last)

    def _bounds(self, node: fx.Node | None) -> Bounds:
        """What the only user of a value clamps it to, if that is all it does, or the first thing."""
        if node is None:
            return UNBOUNDED
        if type(module_of(node, self.root)) is ReLUMaxPool2d:
            return RELU
        return bounds_of(node, self.root) or UNBOUNDED

    def _give(self, result: int, node: fx.Node, last: fx.Node | None) -> None:
        """`result` is the value of all nodes from `node` to `last`, which were taken in."""
        self.values[node] = result
        while last is not None and node is not last:
            following = only_user(node)
            assert following is not None
            node = following
            self.values[node] = result
            self._taken_in.add(node)

    def _adaptive(self, node: fx.Node, value: int) -> int:
        channels, height, width = self.program.shapes[value]
        _, *wanted = _shape(node)
        if wanted == [1, 1]:
            return self.program.global_average(node.name, value)
        if wanted == [height, width]:
            return value
        size = (height // wanted[0], width // wanted[1])
        window = (channels, channels, *size, *size, 0, 0, 1, 1, channels)
        return self.program.pool(node.name, Kind.AVERAGE_POOL, value, window, _shape(node))


def lowers(node: fx.Node, root: nn.Module) -> bool:
    """Whether the engine has this step, for the shapes that it was propagated with."""
    if shape_of(node) is None or any(shape_of(each) is None for each in node.all_input_nodes):
        return False
    module = module_of(node, root)
    if module is not None and (hooked(module) or "forward" in vars(module)):
        return False
    if _changes_its_input(node, module):
        (given, *_) = node.all_input_nodes
        if len(given.users) > 1 or not _is_fresh(given, root):
            return False
    if isinstance(module, _CONVOLUTIONS):
        return type(module) in _CONVOLUTIONS and _fits(module, shape_of(node.all_input_nodes[0])) and _pays(module)
    if type(module) in _SAME:
        assert module is not None
        return not module.training and (len(node.all_input_nodes[0].users) == 1 or not _is_written_to(node, root))
    if type(module) in _POOLS:
        found = _pool(module, shape_of(node.all_input_nodes[0]) or (1, 1, 1))
        return found is not None and _gives(found[1], node)
    if type(module) is nn.AdaptiveAvgPool2d:
        (_, height, width), wanted = shape_of(node.all_input_nodes[0]) or (1, 1, 1), _shape(node)
        return height % wanted[1] == 0 and width % wanted[2] == 0
    if node.op == "call_function" and node.target in ADDITIONS:
        tensors = len(node.args) == 2 and all(isinstance(each, fx.Node) for each in node.args)
        return tensors and not node.kwargs and len({shape_of(each) for each in node.args}) == 1
    if node.op == "call_function" and node.target in (torch.cat, torch.concat):
        dimension = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        return dimension in (1, -3) and isinstance(node.args[0], list | tuple)
    return bounds_of(node, root) is not None and len(node.all_input_nodes) == 1


def weight_of(module: Any) -> Tensor:
    """The dense weight, 0 where it is pruned."""
    return module.to_dense().weight if isinstance(module, SparseConv2d) else module.weight


def window_of(module: Any) -> tuple[int, ...] | None:
    """The 11 numbers of a convolution's layer; None for padding that is no zeros, or not the same on both sides."""
    if isinstance(module, SparseConv2d):
        _, *numbers = module.spec.to_ints()
        return None if any(module._input_padding) else tuple(numbers)
    if module.padding_mode != "zeros" or (isinstance(module.padding, str) and module.padding != "valid"):
        return None
    padding = (0, 0) if module.padding == "valid" else module.padding
    sizes = (*module.kernel_size, *module.stride, *padding, *module.dilation)
    return (module.in_channels, module.out_channels, *sizes, module.groups)


def _fits(module: Any, shape: Shape | None) -> bool:
    """Whether the engine takes the layer, on images of that shape: it keeps zeros around them."""
    window = window_of(module)
    if window is None or shape is None:
        return False
    return all(padding <= max(size, ANY_PADDING) for padding, size in zip(window[6:8], shape[1:], strict=True))


def _pays(module: Any) -> bool:
    if isinstance(module, SparseConv2d) and module.backend not in _BACKENDS:
        return False
    if module.in_channels <= FEW_CHANNELS or module.groups == module.in_channels:
        return True
    weight = weight_of(module)
    return int(weight.count_nonzero()) <= DENSEST * weight.numel()


def _pool(module: Any, shape: Shape) -> tuple[Kind, tuple[int, ...]] | None:
    channels = shape[0]
    if type(module) is ReLUMaxPool2d:
        return Kind.MAX_POOL, (channels, channels, 2, 2, 2, 2, 0, 0, 1, 1, channels)
    kernel, padding = _pair(module.kernel_size), _pair(module.padding)
    stride = _pair(kernel if module.stride is None else module.stride)
    window = (channels, channels, *kernel, *stride, *padding, 1, 1, channels)
    if type(module) is nn.AvgPool2d:
        plain = module.divisor_override is None and (module.count_include_pad or padding == (0, 0))
        return (Kind.AVERAGE_POOL, window) if plain else None
    return (Kind.MAX_POOL, window) if _pair(module.dilation) == (1, 1) and not module.return_indices else None


def _gives(window: tuple[int, ...], node: fx.Node) -> bool:
    """Whether the result is not larger than that of whole windows, as by ceil_mode."""
    _, height, width = shape_of(node.all_input_nodes[0]) or (1, 1, 1)
    sizes = [(size + 2 * window[6 + d] - window[2 + d]) // window[4 + d] + 1 for d, size in enumerate((height, width))]
    return tuple(sizes) == _shape(node)[1:]


def _changes_its_input(node: fx.Node, module: nn.Module | None) -> bool:
    if module is not None:
        return bool(getattr(module, "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_")
    clamp = clamps.of_call(node.target, *node.args[1:], **node.kwargs)
    return clamp[1] if clamp else getattr(node.target, "__name__", "").startswith("iadd")


def _is_fresh(node: fx.Node, root: nn.Module) -> bool:
    """Whether what it computes has memory of its own: what is done to that is seen nowhere else."""
    module = module_of(node, root)
    if type(module) in _SAME:
        return len(node.all_input_nodes[0].users) == 1 and _is_fresh(node.all_input_nodes[0], root)
    return isinstance(module, (*_CONVOLUTIONS, nn.BatchNorm2d)) or lowers(node, root)


def _is_written_to(node: fx.Node, root: nn.Module) -> bool:
    """Whether a later step changes what this one hands on as it is, which others read too."""
    for user in node.users:
        module = module_of(user, root)
        if _changes_its_input(user, module) or (type(module) in _SAME and _is_written_to(user, root)):
            return True
    return False


def _shape(node: fx.Node) -> Shape:
    shape = shape_of(node)
    assert shape is not None
    return shape
