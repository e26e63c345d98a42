"""A graph that is compiled or exported holds the plan of a mask: here it is refused once the mask was written to."""

from __future__ import annotations

from torch.utils.weak import WeakIdKeyDictionary

from lth_sparse.plans.pattern import Pattern

_versions = WeakIdKeyDictionary()
"""For each mask that was looked at, how often it had been written to then, as PyTorch counts."""


def refuse_written(pattern: Pattern) -> None:
    """Raise ValueError when the pattern's mask has other live positions than it had when it was indexed."""
    mask = pattern.mask
    version = None if mask.is_inference() else mask._version
    if version is None or _versions.get(mask) != version:
        if not pattern.describes(mask):
            raise ValueError(
                "mask: got other live positions, written in place, in a compiled or exported layer, expected those "
                "it was made with: give the mask to load_state_dict, or call the layer once without torch.compile; "
                "what is exported, export the model again"
            )
        _versions[mask] = version
