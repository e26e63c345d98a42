"""Models for inference alone."""

from lth_sparse.inference.module import for_inference

__all__ = ["for_inference"]
