"""What a run came to, in the lines that it ends with: figures of this run, and no gain that it did not measure."""

from __future__ import annotations

from lth_sparse.storage.record import STEP, Record, Round

NOTICEABLE = 1.05
"""Of two step times: the clock of a shared machine drifts by as much between two of the same."""


def accuracy(record: Record) -> str:
    """Of the ticket that the run puts forward, beside the dense network's."""
    best, dense = record.best_ticket(), record.rounds[0]
    return (
        f"{dense.dataset}: round {best.round}, {best.density:.1%} of the weights left: test accuracy "
        f"{best.accuracy_retrained:.2%}, dense {dense.accuracy_retrained:.2%}"
    )


def speed(record: Record, backend: str) -> str:
    """Of a training step of that ticket, beside masked dense PyTorch's, and of the sparsest one where that gains.

    `backend`: the run's, by its name.
    """
    best, sparsest = record.best_ticket(), record.rounds[-1]
    said = _sentence(record, best, backend)
    if sparsest is not best and (ratio := _ratio(record, sparsest, backend)) and ratio >= NOTICEABLE:
        said += f"; of the sparsest, {sparsest.density:.1%} of the weights left, {ratio:.2f} times faster"
    return said


def gradients(record: Record) -> str:
    """What the processes send each other in a step of that ticket; "" where there is one process."""
    best = record.best_ticket()
    if best.gradient_bytes is None or not best.dense_gradient_bytes:
        return ""
    return (
        f"Its gradients, which the processes average in each step, have {best.gradient_bytes:,} bytes, "
        f"{best.gradient_bytes / best.dense_gradient_bytes:.1%} of the dense network's"
    )


def _sentence(record: Record, row: Round, backend: str) -> str:
    what = "A training step of this ticket"
    if _by_dense(record, row, backend):
        return f"{what} is masked dense PyTorch's, and takes as long"
    ratio = _ratio(record, row, backend)
    if ratio is None:
        return f"{what} was not timed"
    otherwise = "no faster" if ratio > 1 / NOTICEABLE else "slower"
    verdict = f"{ratio:.2f} times faster" if ratio >= NOTICEABLE else otherwise
    return (
        f"{what} takes {row.step_ms:.2f} ms, masked dense PyTorch's {row.dense_step_ms:.2f} ms, as measured in this "
        f"run: {verdict}"
    )


def _ratio(record: Record, row: Round, backend: str) -> float | None:
    """Masked dense PyTorch's time over that of the round's step; None where they are the same, or were not timed."""
    return None if _by_dense(record, row, backend) else row.speedup


def _by_dense(record: Record, row: Round, backend: str) -> bool:
    steps = (each for each in record.chosen if each.round == row.round and each.operation == STEP)
    return backend == "dense" or any(each.backend == "dense" for each in steps)
