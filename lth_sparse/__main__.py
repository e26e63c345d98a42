"""`lth`, or `python -m lth_sparse`: all commands under one name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from lth_sparse import __version__
from lth_sparse.system.command_line import BAD_INPUT
from lth_sparse.system.messages import aligned, say
from lth_sparse.system.suggest import nearest

COMMANDS = {
    "run": "finds lottery tickets: trains, prunes, rewinds and retrains, round after round",
    "transfer": "trains a ticket on another data set, another network or by another optimizer",
    "reproduce": "tests published claims, at full size or within a time that you give",
    "sweep": "plays many runs, on several seeds each, with one table and one page over all",
    "verify": "compares sparse layers with masked dense PyTorch, for accuracy and for speed",
    "infer": "times a ticket, or a pruned network, that only infers, beside dense PyTorch",
    "doctor": "says what works on this machine, why the rest does not, and tests it",
}
"""Name of a module of this package, with a `main` of its own -> what it does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Hands the command line to the command that it names, and gives its exit status; 2 when it names none."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    name = given[0] if given else "--help"
    if name in COMMANDS:
        return int(importlib.import_module(f"lth_sparse.{name}").main(given[1:], f"lth {name}"))
    if name == "--version":
        print(f"lth_sparse {__version__}")
        return 0
    if name in ("-h", "--help"):
        lines = aligned([[f"lth {command}", what] for command, what in COMMANDS.items()])
        print("\n".join(["usage: lth COMMAND [options]", "", *("  " + line for line in lines)]))
        print("\nlth COMMAND --help lists the options of a command, with examples.")
        return 0 if given else BAD_INPUT
    say(f"lth: error: {name}: there is no such command{nearest(name, COMMANDS)}; there are: {', '.join(COMMANDS)}")
    return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
