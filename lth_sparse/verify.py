"""`python -m lth_sparse.verify`: is it right, is it faster? On a registered network, a ticket, or your own model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime, timezone

import torch

from lth_sparse import __version__, models
from lth_sparse.backends import winograd
from lth_sparse.backends.registry import backends
from lth_sparse.report.plots import png
from lth_sparse.storage import environment
from lth_sparse.storage.files import write_atomically, write_entries
from lth_sparse.system import allocator, command_line, home
from lth_sparse.system.errors import InputError
from lth_sparse.verification import table
from lth_sparse.verification.contenders import ALL, contenders
from lth_sparse.verification.judgement import Row
from lth_sparse.verification.plot import picture
from lth_sparse.verification.rows import Conditions, rows_of
from lth_sparse.verification.subject import subjects

PROGRAM = "python -m lth_sparse.verify"
OUT_OF_BOUNDS = 1
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


EXAMPLES = (
    ("--backend all --model vgg16 --sparsity 0.8,0.9,0.95", "every backend that works here, at three sparsities"),
    ("--ticket runs/quick-01/tickets/round-04.safetensors", "a ticket"),
    ("--model my_module:my_network --input-shape 3,64,64", "a network of yours, pruned or not"),
)


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """The command line."""
    made = command_line.Parser(
        program,
        "Compares sparse layers with masked dense PyTorch: forward pass, both gradients and a training, errors against "
        "float64 with their bounds, and speedups. Exit status 1 when anything is out of bounds.",
        EXAMPLES,
    )
    what, how, found = (
        made.add_argument_group(title)
        for title in ("what is verified", "under which conditions", "where the findings go, beside the terminal")
    )
    what.add_argument(
        "--backend", type=command_line.names, default=("auto",), metavar="NAMES",
        help=f"one or several, with commas ({', '.join(backends())}), or {ALL}: every one that works here "
        "(default: auto)",
    )  # fmt: skip
    what.add_argument(
        "--model", metavar="NAME",
        help=f"a registered network ({', '.join(models.names())}), torchvision:NAME, timm:NAME, or module:function, a "
        "function of yours that gives an nn.Module and may take input_shape and num_classes, 10 (default: conv4)",
    )  # fmt: skip
    what.add_argument("--ticket", metavar="FILE", help="a ticket, with --model module:function if it names no network")
    what.add_argument(
        "--input-shape", type=command_line.sizes, metavar="SIZES",
        help="of one example, without the batch (default: 3,32,32 for registered networks)",
    )  # fmt: skip
    what.add_argument(
        "--sparsity", type=command_line.fractions, metavar="FRACTIONS",
        help="of each layer, pruned by magnitude; several with commas (default: 0.9, or as the model is pruned)",
    )  # fmt: skip
    how.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")
    how.add_argument("--dtype", default="float32", metavar="NAME", help=f"{', '.join(DTYPES)} (default: float32)")
    how.add_argument("--batch-size", type=int, default=32, metavar="N", help="examples in a batch (default: 32)")
    how.add_argument("--steps", type=int, default=10, metavar="N", help="of the training; 0: none (default: 10)")
    how.add_argument(
        "--winograd", metavar="TILE",
        help=f"the largest tile of Winograd's algorithm on the CPU: {', '.join(winograd.SETTINGS)} (default: what "
        f"{winograd.VARIABLE} says, or 4x4)",
    )  # fmt: skip
    how.add_argument("--seed", type=int, default=0, metavar="N", help="of weights, inputs and targets (default: 0)")
    found.add_argument("--plot", metavar="FILE.png", help="draw speedups and errors")
    found.add_argument("--json", metavar="FILE", help="write all rows, with what they were measured on")
    return made


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line; gives its exit status: 0 all within bounds, 1 something is not, 2 bad input."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    allocator.keep_freed_memory()
    return command_line.exit_status(
        program,
        lambda: _limited(parser(program).parse_args(given), home.command(program, given)),
        smaller="lower --batch-size or choose a smaller model",
    )


def _limited(options: argparse.Namespace, command: str) -> int:
    with winograd.limited(options.winograd or winograd.setting()):
        return _verify(options, command)


def _verify(options: argparse.Namespace, command: str) -> int:
    for name, least in (("batch_size", 1), ("steps", 0)):
        if getattr(options, name) < least:
            raise InputError(f"--{name.replace('_', '-')} {getattr(options, name)}: expected at least {least}")
    command_line.check_seed(options.seed)
    if options.dtype not in DTYPES:
        raise InputError(f"--dtype {options.dtype}: expected {', '.join(DTYPES)}")
    for name in ("plot", "json"):
        command_line.check_file(name, getattr(options, name))
    device = command_line.device(options.device)
    chosen, left_out = contenders(options.backend, device)
    under = Conditions(device, DTYPES[options.dtype], options.batch_size, options.steps, options.seed)
    found = subjects(options.model, options.ticket, options.input_shape, options.sparsity, options.seed)
    here = environment.describe(device, __version__)
    print(", ".join(f"{name} {value}" for name, value in here.items() if value))
    print(f"batch {options.batch_size} of {found[0].input_shape}, {options.dtype}, seed {options.seed}")
    for line in left_out:
        print(f"not verified: {line}")
    for layer, reason in found[0].left_dense.items():
        print(f"stays dense: {layer}: {reason}")
    rows: list[Row] = []
    for subject in found:
        began = len(rows)
        rows += rows_of(subject, chosen, under)
        for line in table.lines(rows[began:]):
            print(line, flush=True)
    print(f"\n{table.LEGEND}\n\n{table.closing(rows)}")
    if options.json is not None:
        about = {
            "measured_on": here,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "command": command,
            "batch_size": options.batch_size,
            "input_shape": list(found[0].input_shape),
            "dtype": options.dtype,
            "not_verified": left_out,
            "stays_dense": found[0].left_dense,
        }
        write_entries(command_line.path(options.json), about, {"rows": [row.to_json() for row in rows]})
    if options.plot is not None:
        write_atomically(command_line.path(options.plot), png(picture(rows, found[0].name)))
    return 0 if all(row.holds for row in rows) else OUT_OF_BOUNDS


if __name__ == "__main__":
    sys.exit(main())
