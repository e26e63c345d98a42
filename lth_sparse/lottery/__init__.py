"""The rounds of a lottery: train, prune, rewind, prove, train again."""
