"""What runs on a machine with a GPU: builds, tests, measures, profiles and tunes. `python -m bench.gpu` is most of it.

Nothing here needs a network, and what was found is written as it is found: the machine may be lent for minutes.
"""
