"""Whether Winograd's algorithm changes what a lottery finds: `python -m bench.accuracy`, options as lth_sparse.run's.

One lottery by the cpp backend on several seeds, with Winograd's algorithm and without it: the same but for rounding. Of
every round of each the test accuracy goes into a file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import lth_sparse
from lth_sparse.backends import winograd
from lth_sparse.lottery.playing import Request, play
from lth_sparse.run import options_but
from lth_sparse.settings import config
from lth_sparse.settings.checks import flag
from lth_sparse.storage import environment
from lth_sparse.storage.files import slug, write_entries
from lth_sparse.system import allocator, home
from lth_sparse.system.command_line import exit_status
from lth_sparse.system.errors import InputError

PROGRAM = "python -m bench.accuracy"
RESULTS = Path(__file__).with_name("results")
SETTLED = ("out", "resume", "choices", "backend", "seed", "winograd")
"""Options of lth_sparse.run that this command settles itself."""
SIDES = ("off", "4x4")


def played(options: dict[str, Any], seeds: int, command: str) -> list[dict[str, Any]]:
    """A row for each seed, setting and round."""
    rows = []
    for seed in range(seeds):
        for largest in SIDES:
            with tempfile.TemporaryDirectory() as folder:
                given = options | {"backend": "cpp", "seed": seed, "winograd": largest}
                _, record = play(Request(given, command, Path(folder) / "run"))
            rows += [
                {
                    "seed": seed, "winograd": largest, "round": each.round, "density": each.density,
                    "accuracy": each.accuracy_retrained, "logit_error": each.max_relative_error,
                }
                for each in record.rounds
            ]  # fmt: skip
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Plays, and writes the file; 2 for bad input, told in one line."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    made = argparse.ArgumentParser(
        prog=PROGRAM,
        description="one lottery on several seeds, with Winograd's algorithm and without it",
        epilog=f"All options of python -m lth_sparse.run but {', '.join(map(flag, SETTLED))} are options here.",
        allow_abbrev=False,
    )
    made.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N - 1 (default: 3)")
    made.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where the file goes")
    chosen, rest = made.parse_known_args(given)
    allocator.keep_freed_memory()

    def work() -> int:
        options = options_but(SETTLED, rest)
        if chosen.seeds < 1:
            raise InputError(f"--seeds {chosen.seeds}: expected at least 1")
        settings, command = config.build(options), home.command(PROGRAM, given)
        rows = played(options, chosen.seeds, command)
        about = {
            "measured_on": environment.describe(torch.device("cpu"), lth_sparse.__version__),
            "date": datetime.now(timezone.utc).date().isoformat(),
            "command": command,
            "config": settings.to_json(),
            "allowed_error": winograd.ERROR,
        }
        path = chosen.results / f"accuracy-{slug(settings.model)}.json"
        write_entries(path, about, {"rounds": rows})
        print(f"{len(rows)} rounds played; written to {path}")
        return 0

    return exit_status(PROGRAM, work, smaller="lower --batch-size or choose a smaller model")


if __name__ == "__main__":
    sys.exit(main())
