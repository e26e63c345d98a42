"""The file of a run's figures, which bench/results/README.md explains."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.timing.ceilings import Ceilings
from bench.timing.row import Findings
from lth_sparse.storage.files import slug, write_entries


def write(
    directory: Path, measured_on: Mapping[str, Any], command: str, ceilings: Ceilings | None, found: Findings
) -> Path:
    """One entry a line, so that two files can be compared by eye. Of the CPU: bench/gpu/ writes those of a GPU."""
    path = directory / f"cpu-{slug(measured_on['processor'])}.json"
    about: dict[str, Any] = {
        "measured_on": measured_on,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": command,
    }
    if ceilings:
        about["ceilings"] = ceilings.as_dict()
    rows = [vars(row) | {"verdict": row.verdict} for row in found.rows]
    operations = [each.as_dict() for each in found.operations if each.device == "cpu"]
    write_entries(path, about, {"rows": rows, "sides": found.sides, "operations": operations})
    return path
