"""Criteria as a command line names them: one of ours, or the user's own by `module:function`."""

from __future__ import annotations

from lth_sparse.lottery.criteria import CRITERIA, Criterion
from lth_sparse.system import users_code
from lth_sparse.system.errors import InputError
from lth_sparse.system.suggest import nearest


def criterion_of(name: str) -> str | Criterion:
    """The name itself, where it is one of `CRITERIA`, or the function that it names. Raises InputError for neither."""
    where = f"--criterion {name}"
    if ":" in name:
        found = users_code.function(name, where)
        users_code.check_takes_one(found, "model", where)
        return found
    if name not in CRITERIA:
        raise InputError(f"{where}: expected one of {', '.join(CRITERIA)}{nearest(name, CRITERIA)}, or module:function")
    return name
