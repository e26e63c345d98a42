"""The backends by name: which there are, which can be used here, and why the others cannot."""

from collections.abc import Callable

from lth_sparse.backends.base import Backend
from lth_sparse.system.errors import BackendError
from lth_sparse.system.suggest import nearest

_NAMES = ("auto", "dense", "cpp", "triton", "cuda")
_registered: dict[str, Backend] = {}
_unusable: dict[str, str | Callable[[], str]] = {}
_kernels: dict[str, list[str]] = {}


def register(
    name: str, unusable: str | Callable[[], str] = "", kernel_of: str = ""
) -> Callable[[type[Backend]], type[Backend]]:
    """Class decorator: make the class's one instance known under `name`.

    `unusable` says in one sentence why the backend cannot be used on this machine, and is empty when it can; a function
    is asked for it each time. `kernel_of`: the backend that these are kernels of, which chooses among its own; they can
    be asked for by their name, and are not listed.
    """

    def add(backend_class: type[Backend]) -> type[Backend]:
        _registered[name] = backend_class()
        _unusable[name] = unusable
        if kernel_of:
            _kernels.setdefault(kernel_of, []).append(name)
        return backend_class

    return add


def backends() -> dict[str, str]:
    """Name -> "" if the backend can be used here, else the reason why not."""
    names = [name for name in dict.fromkeys([*_NAMES, *_unusable]) if name not in _all_kernels()]
    return {name: _reason(name) for name in names}


def kernels(name: str) -> list[str]:
    """The names of the kernels that a backend chooses among, or its own when it has but one way."""
    return _kernels.get(name, [name])


def with_kernels() -> dict[str, str]:
    """The same, and the kernels of those backends that have several."""
    return backends() | {kernel: _reason(kernel) for kernel in _all_kernels()}


def _all_kernels() -> list[str]:
    return [kernel for kernels in _kernels.values() for kernel in kernels]


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
    known = with_kernels()
    if known.get(name) == "" and name in _registered:
        _unusable[name] = ""  # What can be used once can be used from then on: it is not asked again.
        return name
    if name not in known:
        raise BackendError(f'unknown backend "{name}"{nearest(name, known)} (known: {", ".join(backends())})')
    raise BackendError(f'backend "{name}" cannot be used here: {known[name]}')


def get(name: str) -> Backend:
    """The backend called `name`. Raises BackendError as `resolve` does."""
    return _registered[resolve(name)]
