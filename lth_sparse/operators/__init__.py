"""What PyTorch's transforms and counters make of the sparse operators."""
