"""LeNet-300-100, two hidden layers (LeCun et al. 1998; Frankle and Carbin 2019, figure 2)."""

import math
from collections import OrderedDict

from torch import nn

from lth_sparse.models.initialization import gaussian_glorot
from lth_sparse.models.registry import register


@register("lenet-300-100")
def lenet_300_100(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """266,200 weights for 28x28 images of one channel and ten classes."""
    return gaussian_glorot(
        nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                fc1=nn.Linear(math.prod(input_shape), 300),
                relu1=nn.ReLU(inplace=True),
                fc2=nn.Linear(300, 100),
                relu2=nn.ReLU(inplace=True),
                output=nn.Linear(100, classes),
            )
        )
    )
