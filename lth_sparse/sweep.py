"""`python -m lth_sparse.sweep`: plays many runs, which a file lists, with one table and one page over all."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lth_sparse.experiments import sweep, sweep_file
from lth_sparse.experiments.engines import choosing, dispatch
from lth_sparse.lottery.playing import Request
from lth_sparse.settings import config
from lth_sparse.system import command_line, home, torchrun
from lth_sparse.system.command_line import BAD_INPUT, Parser, resumable_status

PROGRAM = "python -m lth_sparse.sweep"
EXAMPLES = (
    ("sweep.yaml", "plays its runs, each on its seeds, into runs/sweep-01"),
    ("sweep.yaml --on slurm --slurm partition=cpu --slurm time=60", "on Slurm, an hour at most for a job"),
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
    engines = made.add_argument_group("where its jobs run, each of which plays a run on one seed")
    engines.add_argument(
        "--on", choices=choosing.NAMES, help="this machine (local, the default), a Ray cluster, or Slurm by submitit"
    )
    engines.add_argument(
        "--jobs",
        type=command_line.at_least(1),
        metavar="N",
        help="at most N at once (default: on this machine as many as it has cores, or one where they use a GPU; "
        "elsewhere as many as there is room for)",
    )
    engines.add_argument(
        "--threads-per-job",
        type=command_line.at_least(1),
        metavar="N",
        help="threads, and cores, for each (default: on this machine its cores shared out; elsewhere 1)",
    )
    engines.add_argument(
        "--retries",
        type=command_line.at_least(0),
        metavar="N",
        default=dispatch.RETRIES,
        help="how often a job whose process was lost goes on in another (default: %(default)s)",
    )
    engines.add_argument(
        "--address", metavar="HOST:PORT", help="of the Ray cluster (default: RAY_ADDRESS, or the one of this machine)"
    )
    engines.add_argument(
        "--slurm",
        type=command_line.pair,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of submitit's SlurmExecutor, such as partition=cpu; time=MINUTES has to be given",
    )
    return made


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line; gives its exit status: 0 done, 2 bad input or a run that failed, told in one line each."""
    given = sys.argv[1:] if arguments is None else list(arguments)

    def work() -> int:
        torchrun.refuse_several(program, "start it without torchrun")
        found = vars(parser(program).parse_args(given))
        out, resume = command_line.out_and_resume(found)
        asked = choosing.Asked(
            found.get("on", "local"),
            found.get("jobs"),
            found.get("threads_per_job"),
            found.get("address"),
            dict(found["slurm"]),
        )
        spec = sweep_file.read(command_line.path(found["spec"]))
        wanted = spec.seeds * len(spec.runs)
        devices = {config.build(settings).device for settings in spec.runs.values()}
        directory, done = sweep.play_all(
            Request({}, home.command(program, given), out, resume),
            spec,
            lambda logs: choosing.engine(asked, wanted, devices, logs),
            found["retries"],
        )
        failed = sum(bool(each.failed) for each in done)
        print(f"{len(done) - failed} of {len(done)} runs; {directory / 'sweep.csv'}, {directory / 'report.html'}")
        return BAD_INPUT if failed else 0

    return resumable_status(program, given, work, smaller="lower batch_size or choose a smaller model")


if __name__ == "__main__":
    sys.exit(main())
