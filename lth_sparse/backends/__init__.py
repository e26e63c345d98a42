"""The backends. Importing a backend's module registers it: a new one is a new file and its import here."""

from lth_sparse.backends import auto, cpp, cpp_depthwise, cpp_sparse, cpp_winograd, cuda, dense, triton
from lth_sparse.backends.base import Backend, Plan
from lth_sparse.backends.registry import backends, get, register, resolve
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.system.errors import BackendError

__all__ = [
    "Backend",
    "BackendError",
    "LayerSpec",
    "Plan",
    "auto",
    "backends",
    "cpp",
    "cpp_depthwise",
    "cpp_sparse",
    "cpp_winograd",
    "cuda",
    "dense",
    "get",
    "register",
    "resolve",
    "triton",
]
