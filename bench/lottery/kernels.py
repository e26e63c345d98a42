"""Which kernels computed the layers of a round, and for how long."""

from __future__ import annotations

from collections.abc import Sequence

from lth_sparse.storage.record import STEP, Chosen


def kernels_of(rows: Sequence[Chosen], round: int) -> dict[str, float]:
    """Name of a kernel -> milliseconds of a step that the layers' operations took that it computed in `round`.

    They are those that auto measured when it chose; where masked dense PyTorch trained the round, all are dense's.
    """
    found: dict[str, float] = {}
    step = next((row for row in rows if (row.round, row.operation) == (round, STEP)), None)
    for row in rows:
        if row.round == round and row.operation != STEP and step is not None:
            name = "dense" if step.backend == "dense" else row.backend
            found[name] = found.get(name, 0.0) + row.milliseconds.get(name, 0.0)
    return found
