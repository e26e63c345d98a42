"""What serves `pytest bench/`: which cases it collects, one run of them, what is printed and written."""
