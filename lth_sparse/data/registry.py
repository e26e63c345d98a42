"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lth_sparse.data.dataset import Source
from lth_sparse.system.errors import InputError
from lth_sparse.system.suggest import nearest

Loader = Callable[[Path, int | None], Source]

_LOADERS: dict[str, Loader] = {}


class Unavailable(InputError):
    """A data set that is neither on disk nor to be fetched."""


def register(name: str) -> Callable[[Loader], Loader]:
    """Makes `loader(data_dir, image_size) -> Source` available as `name`.

    `image_size`, in pixels, is None unless the user gave one; a loader that decodes images of several sizes needs it,
    the others may ignore it, because every source is resized afterwards. A loader raises InputError for data that it
    cannot use, and Unavailable for data that is not there.
    """

    def add(loader: Loader) -> Loader:
        _LOADERS[name] = loader
        return loader

    return add


def names() -> list[str]:
    """The registered data sets."""
    return list(_LOADERS)


def loader(name: str) -> Loader:
    """The loader registered as `name`; raises InputError, with the nearest name, when there is none."""
    if name not in _LOADERS:
        known = ["auto", *_LOADERS]
        raise InputError(
            f"data set {name!r} is not known{nearest(name, known)}; there are: {', '.join(known)}, and module:function"
        )
    return _LOADERS[name]
