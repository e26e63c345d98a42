"""Who is timed: dense PyTorch, ours, and others that run a pruned layer."""
