"""What was compared, in words: files x comparisons, then every comparison's first difference."""

from __future__ import annotations

from tests.unchanged.comparison import Verdict


def table(comparisons: dict[str, dict[str, Verdict]]) -> str:
    """A row a file, a column a comparison: "equal", "times" (equal but for times), "DIFFERS", "-" (not compared)."""
    files = list(dict.fromkeys(file for verdicts in comparisons.values() for file in verdicts))
    rows = [["", *comparisons]]
    rows += [[file, *(str(verdicts.get(file, "-")) for verdicts in comparisons.values())] for file in files]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def differences(comparisons: dict[str, dict[str, Verdict]]) -> list[str]:
    """For each comparison that is not equal, its first difference: file, line or byte, both values."""
    lines = []
    for name, verdicts in comparisons.items():
        found = [(file, verdict.difference) for file, verdict in verdicts.items() if verdict.difference]
        if found:
            more = f" (and {len(found) - 1} more files)" if len(found) > 1 else ""
            lines.append(f"{name}: {found[0][0]}, {found[0][1]}{more}")
    return lines
