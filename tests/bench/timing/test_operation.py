"""One operation beside dense PyTorch and beside what the machine could do."""

from __future__ import annotations

from bench.timing.ceilings import Ceilings
from bench.timing.operation import operation
from bench.timing.work import Work


def test_an_operation_beside_dense_and_beside_the_ceilings() -> None:
    # 2 ms for 50 million operations and 10 MB: at 100 GFLOP/s and 10 GB/s it is memory that needs the longest, 1 ms.
    found = operation(
        ("cpu", "case", 0.9, "forward"),
        ("cpp", "contiguous"),
        [0.002, 0.004],
        [0.008, 0.006],
        [Work(50e6, 10e6)],
        Ceilings(100.0, 10.0),
        1e-7,
    )
    assert (found.speedup, found.gflops, found.of_ceiling) == (3.0, 25.0, 0.5)
    assert found.speedup_quartiles == (2.125, 3.375)
    assert found.milliseconds[0] == 2.0
    assert found.as_dict()["turns"] == 2
