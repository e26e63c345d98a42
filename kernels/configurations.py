"""How the kernels are launched on each architecture: one table, configurations.json, that `make tune` rewrites.

Nothing is measured at run time and nothing needs a GPU at import; a launch depends on the table and on shapes alone, so
the same inputs give the same bits on every GPU of an architecture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

PATH = Path(__file__).with_name("configurations.json")
_MOVED, _MOVED_INTERPRETED = 1024, 2**17
MOST_TAPS = 30
"""Rows and columns of a kernel together: each has one bit of an int32 that says whether it is inside the input."""
FEWEST_POSITIONS = 16
"""The least that a tensor core multiplies at once, of rows too."""

INTERPRETER = "interpreter"
"""The row of the table for Triton's interpreter, where what costs is a program, not an element."""

OPERATIONS = ("correlation", "grad_weight")
LAYOUTS = ("contiguous", "channels_last")
PRECISIONS = ("tf32", "ieee", "half", "double")


class BlockShape(NamedTuple):
    """What a mask is packed for. `step_columns` is a multiple of 32."""

    block_rows: int
    step_columns: int


class Launch(NamedTuple):
    """How one kernel is launched.

    positions_first: whether a correlation's tile is multiplied as positions x rows, which is large enough in its first
    dimension for Hopper's wgmma, or as rows x positions.
    """

    block_positions: int
    warps: int
    stages: int
    positions_first: bool = False


@cache
def table() -> Mapping[str, Any]:
    """The whole table."""
    loaded: Mapping[str, Any] = json.loads(PATH.read_text())
    return loaded


def write(rows: Mapping[str, Any], path: Path) -> None:
    """Writes a table such as `table()`, a launch a line, and makes the folder that it lies in."""
    texts = []
    for row, entry in rows.items():
        lines = [f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in entry.items() if name != "launches"]
        launches = [f"      {json.dumps(name)}: {json.dumps(launch)}" for name, launch in entry["launches"].items()]
        lines.append('    "launches": {\n' + ",\n".join(launches) + "\n    }")
        texts.append(f"  {json.dumps(row)}: {{\n" + ",\n".join(lines) + "\n  }")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(texts) + "\n}\n")


def architecture(capability: tuple[int, int]) -> str:
    """The row of the table for a GPU of this compute capability."""
    return "sm_80" if capability < (9, 0) else "sm_90"


def block_shape(row: str, rows: int) -> BlockShape:
    """What the masks of layers with so many `rows` are packed for on the architecture `row`."""
    shape = BlockShape(**table()[row]["blocks"])
    return shape._replace(block_rows=min(shape.block_rows, max(FEWEST_POSITIONS, _power_of_two(rows))))


@cache
def launch_of(row: str, operation: str, layout: str, precision: str, positions: int, blocks: int = 1) -> Launch:
    """The launch of `operation` over all `positions`; a correlation has a program for each of its `blocks` and tiles.

    Tiles are never much larger than the whole, and a correlation's are halved until all multiprocessors have programs.
    """
    launch = Launch(**table()[row]["launches"][f"{operation}/{layout}/{precision}"])
    size = min(launch.block_positions, max(FEWEST_POSITIONS, _power_of_two(positions)))
    while operation == "correlation" and size > 2 * FEWEST_POSITIONS and -(-positions // size) * blocks < _least(row):
        size //= 2
    return launch._replace(block_positions=size)


class Parts(NamedTuple):
    """How grad_weight divides the positions: `count` parts, each of so many tiles of pixels and so many images.

    A part goes through its positions `images_at_once` x `pixels_at_once` at a time; `tile_parts` parts cover all
    pixels.
    """

    count: int
    tile_parts: int
    tiles_each: int
    images_each: int
    images_at_once: int
    pixels_at_once: int


@cache
def parts_of(row: str, block_positions: int, images: int, pixels: int, steps: int) -> Parts:
    """The parts for `images` of `pixels` positions: two programs for a multiprocessor, of which a part has `steps`."""
    pixels_at_once = min(block_positions, _power_of_two(pixels))
    images_at_once = block_positions // pixels_at_once
    tiles, turns = -(-pixels // pixels_at_once), -(-images // images_at_once)
    wanted = min(tiles * turns, -(-2 * _least(row) // steps))
    tiles_each = -(-tiles // min(tiles, wanted))
    tile_parts = -(-tiles // tiles_each)
    turns_each = -(-turns // min(turns, -(-wanted // tile_parts)))
    images_each = turns_each * images_at_once
    return Parts(
        tile_parts * -(-images // images_each), tile_parts, tiles_each, images_each, images_at_once, pixels_at_once
    )


def moved_at_once(slots: int, block_rows: int, interpreted: bool) -> int:
    """Slots of a program that only moves them."""
    return min(max(_power_of_two(slots), block_rows), _MOVED_INTERPRETED) if interpreted else _MOVED


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _least(row: str) -> int:
    least: int = table()[row]["least_programs"]
    return least
