"""What `python -m lth_sparse.infer` measures: the latency of a network that infers, whole and by operation."""
