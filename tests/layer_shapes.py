"""Tiny layers that GPU kernels have to cut up in every way there is."""

from lth_sparse.plans.layer_spec import LayerSpec


def conv2d(in_channels, out_channels, size=3, **rest):
    return LayerSpec("conv2d", in_channels, out_channels, (size, size), **{"padding": (size // 2, size // 2)} | rest)


SHAPES = {
    "several blocks": (conv2d(5, 37), (2, 5, 5, 6)),
    "several steps": (conv2d(11, 9), (2, 11, 4, 5)),
    "several images in a tile": (conv2d(9, 7), (13, 9, 2, 2)),
    "images of one pixel": (conv2d(20, 7), (37, 20, 1, 1)),
    "several tiles of an image": (conv2d(3, 5), (2, 3, 9, 11)),
    "one image": (conv2d(5, 7), (1, 5, 7, 7)),
    "phases of a stride": (conv2d(5, 7, stride=(2, 3)), (3, 5, 9, 7)),
    "a stride beyond the kernel": (conv2d(5, 7, 1, stride=(3, 2)), (3, 5, 7, 7)),
    "dilation": (conv2d(5, 7, dilation=(2, 3)), (2, 5, 9, 9)),
    "padding wider than the image": (conv2d(4, 6, 5), (3, 4, 2, 3)),
    "a kernel of many taps": (conv2d(2, 3, 11), (2, 2, 12, 12)),
    "groups": (conv2d(12, 8, groups=4), (3, 12, 5, 5)),
    "depthwise": (conv2d(6, 6, groups=6), (3, 6, 5, 5)),
    "1 x 1": (conv2d(40, 20, 1), (3, 40, 4, 3)),
    "linear": (LayerSpec("linear", 70, 41), (45, 70)),
    "linear, one row": (LayerSpec("linear", 41, 70), (1, 41)),
}
