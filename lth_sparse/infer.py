"""`python -m lth_sparse.infer`: how fast is a ticket, or a pruned network, when it only infers?"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone

import torch

from lth_sparse import __version__
from lth_sparse.inference import for_inference
from lth_sparse.inference.module import ROUNDING, InferenceModule
from lth_sparse.latency import calls, profile
from lth_sparse.latency.plot import picture
from lth_sparse.nn import sparsify
from lth_sparse.report.plots import png
from lth_sparse.storage import environment
from lth_sparse.storage.files import write_atomically, write_entries
from lth_sparse.system import allocator, command_line, home
from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import aligned, say
from lth_sparse.verification.subject import Subject, subjects

PROGRAM = "python -m lth_sparse.infer"
OURS, DENSE = "lth_sparse", "dense PyTorch"
MOST_OFF = ROUNDING[torch.float32]
OUT_OF_BOUNDS = 1

EXAMPLES = (
    ("--model torchvision:resnet50 --sparsity 0.9 --input-shape 3,224,224", "a network, pruned by magnitude"),
    ("--ticket runs/quick-01/tickets/round-04.safetensors --batch-size 16", "a ticket, 16 images a call"),
    ("--model vgg16 --profile --plot profile.png", "where the time goes, operation by operation"),
)


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """The command line."""
    made = command_line.Parser(
        program,
        "Times a pruned network that only infers, as lth.for_inference makes it, on the CPU, beside dense PyTorch with "
        f"the same weights. Exit status 1 when an output differs by more than {MOST_OFF:g} of the largest.",
        EXAMPLES,
    )
    what, how, found = (
        made.add_argument_group(title)
        for title in ("what runs", "under which conditions", "what is found beside the table")
    )
    what.add_argument("--ticket", metavar="FILE", help="a ticket, with --model module:function if it names no network")
    what.add_argument(
        "--model", metavar="NAME", help="a network, named as for lth_sparse.verify (default: conv4, without a ticket)"
    )
    what.add_argument(
        "--sparsity", type=float, metavar="FRACTION",
        help="of each layer, pruned by magnitude (default: 0.9, or as the model is pruned)",
    )  # fmt: skip
    what.add_argument(
        "--input-shape", type=command_line.sizes, metavar="SIZES",
        help="of one example, without the batch (default: 3,32,32 for registered networks)",
    )  # fmt: skip
    how.add_argument("--batch-size", type=int, default=1, metavar="N", help="examples in a call (default: 1)")
    how.add_argument("--threads", type=int, metavar="N", help="of this process (default: as PyTorch is set)")
    how.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of timing in all (default: 10)")
    how.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and inputs (default: 0)")
    found.add_argument("--profile", action="store_true", help="time and GFLOP/s of live weights of each operation")
    found.add_argument("--plot", metavar="FILE.png", help="draw the profile")
    found.add_argument("--json", metavar="FILE", help="write all figures, with what they were measured on")
    return made


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line; gives its exit status: 0 the outputs agree, 1 they do not, 2 bad input."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    allocator.keep_freed_memory()
    return command_line.exit_status(
        program,
        lambda: _infer(parser(program).parse_args(given), home.command(program, given)),
        smaller="lower --batch-size or choose a smaller model",
    )


def _check(options: argparse.Namespace) -> None:
    for name in ("batch_size", "threads"):
        number = getattr(options, name)
        if number is not None and number < 1:
            raise InputError(f"--{name.replace('_', '-')} {number}: expected at least 1")
    if not 0 < options.seconds < 1e6:
        raise InputError(f"--seconds {options.seconds:g}: expected more than 0 and less than a million")
    command_line.check_seed(options.seed)
    for name in ("plot", "json"):
        command_line.check_file(name, getattr(options, name))


def _infer(options: argparse.Namespace, command: str) -> int:
    _check(options)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    sparsities = None if options.sparsity is None else (options.sparsity,)
    (subject,) = subjects(options.model, options.ticket, options.input_shape, sparsities, options.seed)
    here = environment.describe(torch.device("cpu"), __version__)
    print(", ".join(f"{name} {value}" for name, value in here.items() if value))
    print(
        f"{subject.name}, {subject.sparsity:.1%} pruned, batch {options.batch_size} of {subject.input_shape}, float32"
    )

    dense = subject.model.eval()
    x = torch.randn(options.batch_size, *subject.input_shape, generator=torch.Generator().manual_seed(options.seed))
    ours, ready = _made(subject, x)
    with torch.no_grad():
        off = calls.furthest_off(ours(x), dense(x))
    say(f"ready in {ready:.1f} s; timing for {options.seconds:g} s")
    found = calls.in_turn({OURS: ours, DENSE: dense}, x, options.seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    heads = ["", "calls", *(f"p{percent} ms" for percent in calls.PERCENTILES), "images a second"]
    lines = [
        [each.name, str(len(each.seconds)), *(f"{each.percentile(p):.2f}" for p in calls.PERCENTILES),
         f"{each.images_a_second:,.1f}"]
        for each in found
    ]  # fmt: skip
    print("\n".join(["", *aligned([heads, *lines])]))
    ratio = found[1].percentile(50) / found[0].percentile(50)
    print(
        f"\ndense PyTorch's median call takes {ratio:.2f} times as long; furthest off: {off:.1e} of the largest output"
    )
    print(f"ready in {ready:.1f} s, once the weights were there; this process held up to {peak:,.0f} MiB")

    operations: list[profile.Operation] = []
    if options.profile or options.plot is not None:
        operations = profile.of_network(ours.network_for(x), x, options.seconds)
        if not operations:
            say("no profile: the network could not be followed, so it runs as PyTorch calls it")
    if options.profile and operations:
        print("\n".join(["", *_table(operations)]))
    if options.plot is not None and operations:
        write_atomically(command_line.path(options.plot), png(picture(operations, subject.name)))
    if options.json is not None:
        about = {
            "measured_on": here,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "command": command,
            "subject": subject.name,
            "sparsity": subject.sparsity,
            "batch_size": options.batch_size,
            "input_shape": list(subject.input_shape),
            "threads": torch.get_num_threads(),
            "ready_seconds": ready,
            "furthest_off": off,
            "peak_mebibytes": peak,
        }
        lists = {"calls": [each.to_json() for each in found], "operations": [each.to_json() for each in operations]}
        write_entries(command_line.path(options.json), about, lists)
    return 0 if off <= MOST_OFF else OUT_OF_BOUNDS


def _made(subject: Subject, x: torch.Tensor) -> tuple[InferenceModule, float]:
    """The network for inference, and the seconds until its first call is over."""
    began = time.perf_counter()
    sparse = sparsify(subject.model.eval(), subject.masks)
    made = for_inference(sparse, strict=False)
    made(x)
    return made, time.perf_counter() - began


def _table(operations: Sequence[profile.Operation]) -> list[str]:
    total = sum(each.milliseconds for each in operations)
    rows = [["operation", "ms", "share", "GFLOP/s", "computed by"]]
    for each in profile.slowest_first(operations):
        speed = "" if each.gigaflops is None else f"{each.gigaflops:.1f}"
        rows.append([each.name, f"{each.milliseconds:.3f}", f"{each.milliseconds / total:.1%}", speed, each.kernel])
    return aligned(rows)


if __name__ == "__main__":
    sys.exit(main())
