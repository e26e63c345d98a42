"""Benchmarks: run by `pytest bench/ --benchmark-only`."""
