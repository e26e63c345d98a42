"""Triton kernels: tensors in, tensors out. Imported as `lth_sparse.kernels`."""
