"""`python -m lth_sparse.transfer`: trains tickets on other data, on other networks, by other optimizers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lth_sparse.experiments import transfer
from lth_sparse.lottery import options
from lth_sparse.lottery.playing import Request
from lth_sparse.settings import file
from lth_sparse.system import allocator, command_line, home, torchrun
from lth_sparse.system.command_line import Parser, resumable_status

PROGRAM = "python -m lth_sparse.transfer"
EXAMPLES = (
    ("--ticket runs/first/tickets/round-06.safetensors --dataset cifar100 --replicates 3", "to another data set"),
    ("--ticket resnet20.safetensors --model resnet32", "to a deeper network"),
    ("--ticket a.safetensors b.safetensors --dataset cifar10,svhn", "each ticket to each data set, with a matrix"),
)
SETTLED = (
    "rounds", "prune_rate", "conv_rate", "fc_rate", "output_rate", "sparsity", "scope", "schedule", "rewind_iteration",
    "rewind_epoch", "rewind", "criterion", "prune_at", "dynamic", "update_every", "checkpoint", "dataset",
)  # fmt: skip
"""Settings of `run` that a ticket which is there already leaves nothing to say of, and one that is said otherwise."""


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """The command line: the tickets, where they go, and the settings of a training."""
    made = Parser(
        program,
        "Trains a ticket where it was not found, beside the dense network, a random mask and the ticket's mask on new "
        "initial weights. What is not given is as the ticket was trained: its network, its data, its optimizer.",
        EXAMPLES,
        argument_default=argparse.SUPPRESS,
    )
    what = made.add_argument_group("what goes where")
    what.add_argument(
        "--ticket", nargs="+", required=True, metavar="FILE", help="tickets, each a .safetensors of a run"
    )
    what.add_argument(
        "--dataset",
        type=command_line.names,
        metavar="NAMES",
        help="the data sets, each as lth_sparse.run takes it, such as cifar10,svhn (default: the ticket's own)",
    )
    what.add_argument(
        "--replicates", type=int, metavar="N", help="train all of it on N seeds, from --seed on (default: 1)"
    )
    options.add(made, without=SETTLED)
    files = made.add_argument_group("what it leaves, and what it goes on with")
    files.add_argument("--out", metavar="DIR", help="where all is written (default: runs/transfer-NN)")
    files.add_argument("--config", metavar="FILE", help="take settings from this file, as lth_sparse.run does")
    files.add_argument("--resume", action="store_true", help="go on with what is under --out")
    return made


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line; gives its exit status: 0 done, 2 bad input, told in one line on standard error."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    allocator.keep_freed_memory()

    def work() -> int:
        torchrun.refuse_several(program, "start it without torchrun")
        found = vars(parser(program).parse_args(given))
        tickets = [command_line.path(name) for name in found.pop("ticket")]
        datasets, seeds = found.pop("dataset", ()), found.pop("replicates", None)
        out, resume = command_line.out_and_resume(found)
        config = found.pop("config", None)
        request = Request(
            found,
            home.command(program, given),
            out,
            resume,
            file=file.read(command_line.path(config)) if config is not None else {},
        )
        directory, transfers = transfer.play_all(request, tickets, datasets, seeds)
        print("\n".join(transfer.sentences(transfers)))
        print(f"{directory / 'transfer.csv'}, {directory / 'report.html'}")
        return 0

    return resumable_status(program, given, work, smaller="lower --batch-size or choose a smaller model")


if __name__ == "__main__":
    sys.exit(main())
