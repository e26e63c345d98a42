"""Published claims that were tested: a folder each, as `python -m lth_sparse.reproduce` left it."""

from __future__ import annotations

from collections.abc import Sequence

from bench.page import words
from bench.page.experiments import provenance
from bench.page.section import Section
from bench.page.sources import Tested
from lth_sparse.experiments.claims import CLAIMS
from lth_sparse.report.replicates import times_of_training
from lth_sparse.report.scorecard import ours


def sections(tested: Sequence[Tested]) -> list[Section]:
    """One over all, and one a claim; none where none was tested."""
    if not tested:
        return []
    over = Section("Published claims")
    over.say(
        "Each statement's figure here, the mean over seeds with half its 95 % interval, beside the published one, and",
        "what that says of the statement. [Published claims](../reproduce.md) says how.",
    )
    return [over, *map(_section, tested)]


def _section(tested: Tested) -> Section:
    made = Section(f"claims/{tested.name}/", level=3)
    made.say(f"{CLAIMS[tested.name].source}.")
    made.say(*provenance(next(iter(tested.runs.values()))))
    lines = [
        [each.statement, each.published, ours(each), str(each.seeds), words.percent(each.density), each.verdict]
        for each in tested.judged
    ]
    made.say(*words.table(["statement", "published", "here", "seeds", "weights left", ""], lines))
    made.say(*(f"- {name}: {times_of_training(info)}" for name, info in tested.runs.items()))
    made.say(tested.about)
    return made
