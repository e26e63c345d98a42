"""What is only there where somebody installed it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

PEERS_EXTRA = "pip install --no-build-isolation -e '.[peers]'"
DEEPSPARSE = "pip install deepsparse==1.8.0 'numpy<2' (Python 3.8 to 3.11)"


@dataclass(frozen=True, kw_only=True)
class Installed:
    """`modules`: it needs. `install`: the line that brings them."""

    modules: tuple[str, ...] = ()
    install: str = ""

    def missing(self) -> str:
        """Why it cannot be run here, "" if it can."""
        absent = [name for name in self.modules if importlib.util.find_spec(name) is None]
        return f"{', '.join(absent)} not installed: {self.install}" if absent else ""
