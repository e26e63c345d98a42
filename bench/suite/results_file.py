"""Files of figures, which bench/results/README.md explains: what they are called, and what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.timing.ceilings import Ceilings
from bench.timing.row import Findings
from lth_sparse.storage.files import slug, write_entries


def name(kind: str, measured_on: Mapping[str, Any], *words: str) -> str:
    """`kind` and the machine: its processor, family, model and number of threads, or its GPU; then `words`.

    Of a virtual machine the processor's name alone may be that of its maker.
    """
    if measured_on["device"] == "cpu":
        family = measured_on["processor_family"].partition(" ")[2]  # Without the vendor, who is in the name.
        machine = [measured_on["processor"], family, f"threads {measured_on['threads']}"]
    else:
        machine = [measured_on["device"]]
    return f"{slug(' '.join([kind, *machine, *words]))}.json"


def write(
    kind: str,
    directory: Path,
    measured_on: Mapping[str, Any],
    command: str,
    entries: Mapping[str, Sequence[Any]],
    ceilings: Ceilings | None = None,
) -> Path:
    """One entry a line, so that two files can be compared by eye. Gives the path."""
    path = directory / name(kind, measured_on)
    about: dict[str, Any] = {
        "measured_on": measured_on,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": command,
    }
    if ceilings:
        about["ceilings"] = ceilings.as_dict()
    write_entries(path, about, entries)
    return path


def entries_of(found: Findings) -> dict[str, list[Any]]:
    """What the file of the CPU's figures holds; bench/gpu/ writes those of a GPU."""
    rows = [vars(row) | {"verdict": row.verdict} for row in found.rows]
    operations = [each.as_dict() for each in found.operations if each.device == "cpu"]
    return {"rows": rows, "sides": found.sides, "operations": operations}
