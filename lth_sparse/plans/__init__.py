"""What is worked out once from a mask, before any kernel runs."""
