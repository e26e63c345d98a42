"""Whether a long training keeps its memory: thousands of steps, and new masks again and again.

`make long-runs` is the long form, a fresh process; a short one is part of `make test`.
"""
