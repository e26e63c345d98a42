"""What `python -m lth_sparse.verify` checks: layers, networks and trainings against dense PyTorch and float64."""
