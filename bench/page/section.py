"""A part of the page: its lines and the charts that they show."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.page.charts import Chart


@dataclass
class Section:
    """`level`: of its heading, below the page's own."""

    heading: str
    level: int = 2
    lines: list[str] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)

    def say(self, *lines: str) -> None:
        """Lines of a paragraph, a list or a table, set off from what comes before."""
        self.lines += ["", *lines]

    def show(self, chart: Chart) -> None:
        """A chart, where the text has come to."""
        self.charts.append(chart)
        self.say(chart.markdown())

    def text(self) -> list[str]:
        """With the heading."""
        return [f"{'#' * self.level} {self.heading}", *self.lines, ""]
