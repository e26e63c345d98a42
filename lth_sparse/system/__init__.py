"""What every part may use: messages, errors, seeds, clocks, the allocator."""
