"""The results page and the figures of README.md and docs/, made of what was measured: `python -m bench.page`.

Nothing is measured here, and no figure is typed here: the same files under bench/results/ and docs/results/ give the
same page. `tests/bench/test_results_page.py` fails when the committed page, plots or figures are not what these
files give.
"""
