"""A whole iterative lottery under `auto` against masked dense PyTorch: `python -m bench.lottery`."""
