"""`python -m lth_sparse.sweep`: plays many runs, which a file lists, with one table and one page over all."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lth_sparse.experiments import sweep, sweep_file
from lth_sparse.lottery.playing import Request
from lth_sparse.system import allocator, command_line, home
from lth_sparse.system.command_line import BAD_INPUT, Parser, resumable_status

PROGRAM = "python -m lth_sparse.sweep"
EXAMPLES = (
    ("sweep.yaml", "plays its runs, each on its seeds, into runs/sweep-01"),
    ("sweep.yaml --out runs/criteria", "into a directory of your own"),
    ("sweep.yaml --out runs/criteria --resume", "goes on after a kill; runs that the file has more are added"),
)


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """The command line."""
    made = Parser(
        program,
        "Plays every run of a YAML file: seeds (a number), base (settings, as lth_sparse.run takes them), runs (a name "
        "each, with settings over those of base), grid (settings with lists of values, of which every combination is "
        "played). A run that fails does not end the others.",
        EXAMPLES,
        argument_default=argparse.SUPPRESS,
    )
    made.add_argument("spec", metavar="SPEC", help="the YAML file")
    made.add_argument("--out", metavar="DIR", help="where all is written (default: runs/sweep-NN)")
    made.add_argument("--resume", action="store_true", help="go on with what is under --out")
    return made


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line; gives its exit status: 0 done, 2 bad input or a run that failed, told in one line each."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    allocator.keep_freed_memory()

    def work() -> int:
        found = vars(parser(program).parse_args(given))
        out, resume = command_line.out_and_resume(found)
        spec = sweep_file.read(command_line.path(found["spec"]))
        directory, done = sweep.play_all(Request({}, home.command(program, given), out, resume), spec)
        failed = sum(bool(each.failed) for each in done)
        print(f"{len(done) - failed} of {len(done)} runs; {directory / 'sweep.csv'}, {directory / 'report.html'}")
        return BAD_INPUT if failed else 0

    return resumable_status(program, given, work, smaller="lower batch_size or choose a smaller model")


if __name__ == "__main__":
    sys.exit(main())
