"""`python -m lth_sparse.verify`: is it right, is it faster? On a registered network, a ticket, or your own model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lth_sparse import __version__, models
from lth_sparse.backends import triton
from lth_sparse.backends.registry import backends, get, resolve
from lth_sparse.report.plots import png
from lth_sparse.storage import environment
from lth_sparse.storage.files import write_atomically, write_entries
from lth_sparse.system import allocator, command_line, home
from lth_sparse.system.errors import BackendError, InputError
from lth_sparse.system.messages import say
from lth_sparse.system.seeding import generator
from lth_sparse.verification import layers, network, table
from lth_sparse.verification.judgement import Row, because
from lth_sparse.verification.plot import picture
from lth_sparse.verification.subject import Subject, subjects

PROGRAM = "python -m lth_sparse.verify"
OUT_OF_BOUNDS = 1
ALL = "all"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def _shape(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected sizes such as 3,32,32, given {text}") from error
    if min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"expected sizes of at least 1, given {text}")
    return sizes


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for part in text.split(",") if part))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = command_line.Parser(
        prog=PROGRAM,
        description="Compares sparse layers with masked dense PyTorch: forward pass, both gradients and a training, "
        "errors against float64 with their bounds, and speedups. Exit status 1 when anything is out of bounds.",
        allow_abbrev=False,
    )
    made.add_argument(
        "--backend", type=_names, default=("auto",), metavar="NAMES",
        help=f"one or several, with commas ({', '.join(backends())}), or {ALL}: every one that works here "
        "(default: auto)",
    )  # fmt: skip
    made.add_argument(
        "--model", metavar="NAME",
        help=f"a registered network ({', '.join(models.names())}), or module:function, a function of yours that gives "
        "an nn.Module (default: conv4)",
    )  # fmt: skip
    made.add_argument("--ticket", metavar="FILE", help="a ticket, with --model module:function if it names no network")
    made.add_argument(
        "--input-shape", type=_shape, metavar="SIZES",
        help="of one example, without the batch (default: 3,32,32 for registered networks)",
    )  # fmt: skip
    made.add_argument(
        "--sparsity", type=command_line.fractions, metavar="FRACTIONS",
        help="of each layer, pruned by magnitude; several with commas (default: 0.9, or as the model is pruned)",
    )  # fmt: skip
    made.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")
    made.add_argument("--dtype", default="float32", metavar="NAME", help=f"{', '.join(DTYPES)} (default: float32)")
    made.add_argument("--batch-size", type=int, default=32, metavar="N", help="examples in a batch (default: 32)")
    made.add_argument("--steps", type=int, default=10, metavar="N", help="of the training; 0: none (default: 10)")
    made.add_argument("--seed", type=int, default=0, metavar="N", help="of weights, inputs and targets (default: 0)")
    made.add_argument("--plot", metavar="FILE.png", help="draw speedups and errors")
    made.add_argument("--json", metavar="FILE", help="write all rows, with what they were measured on")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; gives its exit status: 0 all within bounds, 1 something is not, 2 bad input."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    allocator.keep_freed_memory()
    return command_line.exit_status(
        PROGRAM,
        lambda: _verify(parser().parse_args(given), home.command(PROGRAM, given)),
        smaller="lower --batch-size or choose a smaller model",
    )


def _verify(options: argparse.Namespace, command: str) -> int:
    for name, least in (("batch_size", 1), ("steps", 0)):
        if getattr(options, name) < least:
            raise InputError(f"--{name.replace('_', '-')} {getattr(options, name)}: expected at least {least}")
    if options.dtype not in DTYPES:
        raise InputError(f"--dtype {options.dtype}: expected {', '.join(DTYPES)}")
    for name in ("plot", "json"):
        path = getattr(options, name)
        if path is not None and (not path or Path(path).is_dir()):
            raise InputError(f"--{name} {path or repr(path)}: expected the name of a file to write")
    device = command_line.device(options.device)
    chosen, left_out = _backends(options.backend, device)
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
        rows += _rows(subject, chosen, device, options)
        for line in table.lines(rows[began:]):
            print(line, flush=True)
    print(f"\n{table.LEGEND}\n\n{_closing(rows)}")
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
        write_entries(Path(options.json), about, {"rows": [row.to_json() for row in rows]})
    if options.plot is not None:
        write_atomically(Path(options.plot), png(picture(rows, found[0].name)))
    return 0 if all(row.holds for row in rows) else OUT_OF_BOUNDS


def _backends(names: Sequence[str], device: torch.device) -> tuple[list[str], list[str]]:
    """The backends to verify, and a line for each that `all` has to leave out. Raises BackendError for one that is
    asked for by its name."""
    if not names:
        raise InputError(f"--backend is empty: give names with commas, or {ALL}")
    if ALL not in names:
        if "triton" in names and device.type == "cpu":
            triton.interpret()
            say("Triton's interpreter runs its kernels on the CPU, thousands of times slower: choose a small network")
        for name in names:
            if reason := get(resolve(name)).refuses(device):
                raise BackendError(f'backend "{name}" cannot be used here: {reason}')
        return list(names), []
    reasons = {name: reason or get(name).refuses(device) for name, reason in backends().items()}
    return (
        [name for name, reason in reasons.items() if not reason],
        [f"{name}: {reason}" for name, reason in reasons.items() if reason],
    )


def _rows(subject: Subject, chosen: Sequence[str], device: torch.device, options: argparse.Namespace) -> list[Row]:
    subject, dropout = _moved_to(subject, device, DTYPES[options.dtype])
    shape = (options.batch_size, *subject.input_shape)
    images = torch.randn(shape, generator=generator(options.seed, "images")).to(device, DTYPES[options.dtype])
    output = _tried(subject, images)
    if not isinstance(output, Tensor) or not output.is_floating_point():
        raise InputError(f"{subject.name}: expected a network whose output is one tensor of real numbers")
    not_timed = {name: _not_timed(name) for name in chosen}
    cases, unreached = layers.cases(subject, images, options.seed)
    by_layer: dict[str, list[Row]] = {name: [] for name in chosen}
    for case in cases:
        yardstick = layers.Yardstick(case)
        for name in chosen:
            by_layer[name].append(layers.verified(case, yardstick, subject, name, not_timed[name]))
    baseline = network.Baseline(subject, images, options.steps, options.seed)
    rows = []
    for name in chosen:
        rows += by_layer[name]
        rows += [
            Row(
                subject.name, subject.sparsity, name, layer, "layer",
                notes=("not verified by itself: the network does not call it",),
            )
            for layer in unreached
        ]  # fmt: skip
        rows += network.verified(baseline, name, not_timed[name])
    if dropout:
        say(f"{', '.join(dropout)}: dropout is off, so that both sides compute the same")
    return rows


def _moved_to(subject: Subject, device: torch.device, dtype: torch.dtype) -> tuple[Subject, list[str]]:
    """The subject in this dtype on this device, in training mode; and its dropout layers, which are switched off."""
    # What a user has frozen is verified, too.
    model = subject.model.to(device, dtype).train().requires_grad_()
    dropout = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.eval()
            dropout.append(name)
    masks = {name: mask.to(device) for name, mask in subject.masks.items()}
    return Subject(subject.name, model, masks, subject.input_shape, subject.left_dense), dropout


def _tried(subject: Subject, images: Tensor) -> Any:
    """The output of a user's network, whose own mistakes are told as such."""
    try:
        with torch.no_grad():
            return subject.model(images)
    except Exception as error:
        if command_line.out_of_memory(error):
            raise
        raise InputError(
            f"{subject.name} does not take an input of shape {tuple(images.shape)} (--batch-size, --input-shape): "
            f"{because(error)}"
        ) from error


def _not_timed(backend: str) -> str:
    return "Triton's interpreter runs the kernels" if backend == "triton" and triton.interpreted() else ""


def _closing(rows: Sequence[Row]) -> str:
    beyond = [row for row in rows if not row.holds]
    if not beyond:
        return f"all of {len(rows)} rows are within their bounds"
    named = "; ".join(f"{row.part} ({row.backend}, {row.sparsity:.1%}): {table.verdict(row)}" for row in beyond)
    return f"{len(beyond)} of {len(rows)} rows are not within their bounds: {named}"


if __name__ == "__main__":
    sys.exit(main())
