"""What was found, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from lth_sparse.backends.choices import OPERATIONS
from lth_sparse.system.messages import aligned
from lth_sparse.verification.judgement import Judged, Row

TITLES = ("layer", "computed by", *OPERATIONS, "dense ms", "ours ms", "speedup", "")
LEGEND = """\
Errors are differences from masked dense PyTorch in float64, each before its bound. Of a layer: the largest over the
largest entry; allowed is twice what dense PyTorch errs by itself in this dtype, the rounding of a sum as long, and
where cpp/winograd computed, 4e-6 (1e-6 with --winograd 2x2), which Winograd's algorithm errs by in float32.
Of the whole network: the norm over the norm; what becomes of dense PyTorch when each weight moves by 16 roundings
counts as its own error, too, and by a backend that may use Winograd's algorithm, what becomes of it when each
convolution errs as that may. Of a training: of the loss of a step from that of dense PyTorch; allowed is 4 times how
far apart such networks, and float64, are by then. Times are medians, taken in turn: of the forward pass and both
gradients; for the network, of a whole training step; dense and ours each in the faster of NCHW and channels_last."""


def lines(rows: Sequence[Row]) -> list[str]:
    """A table for each sparsity and backend, then what each row has to add."""
    found: list[str] = []
    for subject, sparsity, backend in dict.fromkeys((row.subject, row.sparsity, row.backend) for row in rows):
        chosen = [row for row in rows if (row.subject, row.sparsity, row.backend) == (subject, sparsity, backend)]
        cells = [TITLES, *map(_cells, chosen)]
        found += ["", f"{subject}, {sparsity:.1%} of the weights pruned, backend {backend}"]
        found += ["  " + line for line in aligned(cells)]
        notes: dict[str, list[str]] = {}
        for row in chosen:
            for note in [row.failed] if row.failed else row.notes:
                notes.setdefault(note, []).append(row.part)
        found += [f"  {', '.join(parts)}: {note}" for note, parts in notes.items()]
    return found


def _cells(row: Row) -> tuple[str, ...]:
    errors = [_words(row.judged.get(operation)) for operation in OPERATIONS]
    if row.kind == "training":
        errors[0] = f"loss {_words(row.judged.get('loss'))}"
    dense, own, speedup = row.dense_milliseconds, row.own_milliseconds, row.speedup
    return (
        row.part,
        row.computed_by or "-",
        *errors,
        "-" if dense is None else f"{dense:.3f}",
        "-" if own is None else f"{own:.3f}",
        "-" if speedup is None else f"{speedup:.2f}",
        verdict(row),
    )


def verdict(row: Row) -> str:
    """What became of the row, and which of its errors are out of bounds."""
    if row.failed:
        return "FAILED"
    beyond = [name for name, judged in row.judged.items() if not judged.holds]
    return f"OUT OF BOUNDS: {', '.join(beyond)}" if beyond else ("ok" if row.judged else "")


def _words(judged: Judged | None) -> str:
    return "-" if judged is None else f"{judged.error:.1e} of {judged.bound:.1e}"


def closing(rows: Sequence[Row]) -> str:
    """The sentence that all rows come to."""
    beyond = [row for row in rows if not row.holds]
    if not beyond:
        return f"all of {len(rows)} rows are within their bounds"
    named = "; ".join(f"{row.part} ({row.backend}, {row.sparsity:.1%}): {verdict(row)}" for row in beyond)
    return f"{len(beyond)} of {len(rows)} rows are not within their bounds: {named}"
