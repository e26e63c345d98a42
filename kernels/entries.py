"""From slots to values: which value each slot of a packed weight holds, found without an index of its own.

A word of `live` (plans/column_blocks.py) has one bit for each of 32 columns, so the entry of a slot is the word's
first one plus the number of bits that are set below its own. That is 1/16 of the memory that an int32 for each slot
would take, and it is needed only where a layer's values are spread out, not where they are multiplied.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def entry_of(slot, slots, live, starts, order, BLOCK_ROWS: tl.constexpr, ORDERED: tl.constexpr):
    """For a vector of slots: the place of each one's value, and whether it is alive."""
    position = slot // BLOCK_ROWS
    word = position // 32 * BLOCK_ROWS + slot % BLOCK_ROWS
    bit = position % 32
    exists = slot < slots
    bits = tl.load(live + word, mask=exists, other=0)
    first = tl.load(starts + word, mask=exists, other=0)
    alive = ((bits >> bit) & 1) != 0
    below = bits & ((1 << bit) - 1)
    # The number of bits set: in pairs, in fours, in bytes, in all. `below` is never negative.
    below = below - ((below >> 1) & 0x55555555)
    below = (below & 0x33333333) + ((below >> 2) & 0x33333333)
    below = (below + (below >> 4)) & 0x0F0F0F0F
    below = below + (below >> 8)
    below = (below + (below >> 16)) & 0x3F
    entry = first + below
    if ORDERED:
        entry = tl.load(order + entry, mask=alive, other=0)
    return entry, alive
