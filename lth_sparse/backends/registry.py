"""The backends by name: which there are, which can be used here, and why the others cannot."""

from collections.abc import Callable

from lth_sparse.backends.base import Backend
from lth_sparse.system.errors import BackendError
from lth_sparse.system.suggest import nearest

_NAMES = ("auto", "dense", "cpp", "triton", "cuda")
_registered: dict[str, Backend] = {}
_unusable: dict[str, str | Callable[[], str]] = {}


def register(name: str, unusable: str | Callable[[], str] = "") -> Callable[[type[Backend]], type[Backend]]:
    """Class decorator: make the class's one instance known under `name`.

    `unusable` says in one sentence why the backend cannot be used on this machine, and is empty when it can; a function
    is asked for it each time.
    """

    def add(backend_class: type[Backend]) -> type[Backend]:
        _registered[name] = backend_class()
        _unusable[name] = unusable
        return backend_class

    return add


def backends() -> dict[str, str]:
    """Name -> "" if the backend can be used here, else the reason why not."""
    return {name: _reason(name) for name in dict.fromkeys([*_NAMES, *_unusable])}


def _reason(name: str) -> str:
    reason = _unusable.get(name, "")
    return reason if isinstance(reason, str) else reason()


def resolve(name: str) -> str:
    """`name` itself, when it is that of a backend that can be used here.

    Raises BackendError when the name is not known (with the nearest one) or the backend not usable here (with
    why).
    """
    if _unusable.get(name) == "":  # Asked at every call of a layer.
        return name
    known = backends()
    if known.get(name) == "" and name in _registered:
        _unusable[name] = ""  # What can be used once can be used from then on: it is not asked again.
        return name
    if name not in known:
        raise BackendError(f'unknown backend "{name}"{nearest(name, known)} (known: {", ".join(known)})')
    raise BackendError(f'backend "{name}" cannot be used here: {known[name]}')


def get(name: str) -> Backend:
    """The backend called `name`. Raises BackendError as `resolve` does."""
    return _registered[resolve(name)]
