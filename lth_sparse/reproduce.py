"""`python -m lth_sparse.reproduce CLAIM`: plays what a published claim rests on, and says whether it holds here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lth_sparse.experiments import scorecard
from lth_sparse.experiments.claims import CLAIMS
from lth_sparse.lottery.playing import Request
from lth_sparse.report.scorecard import sentence
from lth_sparse.system import allocator, command_line, home, torchrun
from lth_sparse.system.command_line import BAD_INPUT, Parser, resumable_status
from lth_sparse.system.errors import InputError
from lth_sparse.system.suggest import nearest

PROGRAM = "python -m lth_sparse.reproduce"
ALL = "all"
EXAMPLES = (
    ("lth-lenet --budget 20min", "at the largest size that takes no more than that here"),
    ("pai-vgg16 --size reduced --cifar10 ~/images", "at that size, CIFAR-10 being a folder of images"),
    ("all --budget 3h --out runs/scorecard", "every claim, an equal share of the time each, on one page"),
)


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """The command line."""
    made = Parser(
        program,
        "Plays what a published claim rests on, on several seeds, and says whether it holds here: at the published "
        f"size, or at a smaller one, which is said. Claims: {', '.join(CLAIMS)}; or {ALL}.",
        EXAMPLES,
        argument_default=argparse.SUPPRESS,
    )
    made.add_argument("claim", metavar="CLAIM", help=f"its name, or {ALL}")
    size = made.add_argument_group("how much of it")
    size.add_argument(
        "--budget",
        type=command_line.duration,
        metavar="TIME",
        help="such as 20min: take the largest size that fits, by what a step takes here; all share it alike",
    )
    size.add_argument("--size", metavar="NAME", help="full (the default), reduced or small")
    size.add_argument("--replicates", type=int, metavar="N", help="seeds of each run (default: as the size says)")
    how = made.add_argument_group("how it is run")
    how.add_argument("--cifar10", metavar="DIR", help="CIFAR-10 as images, in DIR/train/<class>/ and DIR/test/<class>/")
    how.add_argument(
        "--data-dir",
        type=home.from_home,
        metavar="DIR",
        help="folder of the published data sets, as lth_sparse.run takes it",
    )
    how.add_argument("--backend", metavar="NAME", help="what computes the layers, as lth_sparse.run takes it")
    how.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, ...")
    how.add_argument("--seed", type=int, metavar="N", help="the first seed (default: 0)")
    files = made.add_argument_group("what it leaves, and what it goes on with")
    files.add_argument("--out", metavar="DIR", help="where all is written (default: runs/scorecard-NN)")
    files.add_argument("--resume", action="store_true", help="go on with what is under --out")
    return made


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line; gives its exit status: 0 tested, whatever came out; 2 bad input or a claim that could not
    be tested, told in one line each."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    allocator.keep_freed_memory()

    def work() -> int:
        torchrun.refuse_several(program, "start it without torchrun")
        found = vars(parser(program).parse_args(given))
        out, resume = command_line.out_and_resume(found)
        name = found.pop("claim")
        if name != ALL and name not in CLAIMS:
            known = [*CLAIMS, ALL]
            raise InputError(f"there is no claim {name!r}{nearest(name, known)}; there are: {', '.join(known)}")
        if "budget" in found and "size" in found:
            raise InputError("give --budget, which picks a size, or --size, not both")
        cifar10 = found.pop("cifar10", None)
        asked = scorecard.Asked(
            list(CLAIMS.values()) if name == ALL else [CLAIMS[name]],
            budget=found.pop("budget", None),
            size=found.pop("size", ""),
            seeds=found.pop("replicates", None),
            cifar10=command_line.path(cifar10) if cifar10 is not None else None,
            settings=found,
        )
        directory, done = scorecard.play_all(Request({}, home.command(program, given), out, resume), asked)
        print("\n".join(sentence(judged) for each in done for judged in each.judged))
        print(f"{directory / scorecard.TABLE}, {directory / 'report.html'}")
        return BAD_INPUT if any(each.failed for each in done) else 0

    return resumable_status(program, given, work, smaller="choose a smaller --size")


if __name__ == "__main__":
    sys.exit(main())
