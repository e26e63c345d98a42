"""A refactoring changes nothing of what a run computes or writes: `python -m tests.unchanged --base REVISION`.

Both trees, the base revision's and the working tree's, play the same runs (`cases.py`), whole, killed and resumed, and
every file that they leave is compared byte for byte (`comparison.py`), times aside (`times.py` says which and why).
Of lth_sparse only commands, files and public names are used here: its modules can be moved without a change to this.
"""
