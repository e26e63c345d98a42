"""The file of a run's figures, which bench/results/README.md explains."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.ceilings import Ceilings
from bench.measure import Findings


def write(
    directory: Path, measured_on: Mapping[str, Any], command: str, ceilings: Ceilings | None, found: Findings
) -> Path:
    """One entry a line, so that two files can be compared by eye. Of the CPU: bench/gpu.py writes those of a GPU."""
    directory.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", measured_on["processor"].lower()).strip("-")
    path = directory / f"cpu-{slug}.json"
    about: dict[str, Any] = {
        "measured_on": measured_on,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": command,
    }
    if ceilings:
        about["ceilings"] = ceilings.as_dict()
    rows = [vars(row) | {"verdict": row.verdict} for row in found.rows]
    operations = [each.as_dict() for each in found.operations if each.device == "cpu"]
    fields = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in about.items()]
    fields += [
        _a_line_each(name, entries)
        for name, entries in (("rows", rows), ("sides", found.sides), ("operations", operations))
    ]
    path.write_text("{\n" + ",\n".join(fields) + "\n}\n")
    return path


def _a_line_each(name: str, entries: list[dict[str, Any]]) -> str:
    return f'"{name}": [\n' + ",\n".join(f"  {json.dumps(entry)}" for entry in entries) + "\n]"
