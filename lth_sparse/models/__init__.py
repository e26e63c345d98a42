"""The networks that runs can train. Importing this package registers them all."""

from lth_sparse.models import alexnet, conv, lenet, resnet, vgg
from lth_sparse.models.registry import Network, build, minimum_size, names, register

__all__ = ["Network", "alexnet", "build", "conv", "lenet", "minimum_size", "names", "register", "resnet", "vgg"]
