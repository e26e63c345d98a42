"""A server that answers images with a ticket: FastAPI and uvicorn around `lth.for_inference`.

An image (PNG, JPEG, ...) that is posted to /predict is answered by its class and the probabilities of all classes;
/health and /metrics say how the server does, /docs lists what it takes. Images that wait are computed together. The
ticket of a run holds the weights that it was rewound to: train it first, as run_a_ticket.py does, or its answers are
wrong.

--load-test sends images over HTTP instead, with batches and without, in turn, and prints what came of it. --quick is a
short one on a ticket of its own, of scikit-learn's digits, made in a temporary directory; about 25 seconds.
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch
from PIL import Image

from lth_sparse.settings.config import DataConfig
from lth_sparse.system.errors import InputError

PROGRAM = "serve_a_ticket.py"
BAD_INPUT = 2

try:
    import uvicorn
    from serving.application import application
    from serving.batcher import Batcher
    from serving.classifier import Classifier
    from serving.load import SAYS_WHERE, load_test
except ModuleNotFoundError as missing:
    print(f"{PROGRAM}: error: {missing.name} is missing: pip install fastapi uvicorn httpx", file=sys.stderr)
    sys.exit(BAD_INPUT)


def serve(options: argparse.Namespace) -> int:
    """Serves until SIGTERM or Ctrl-C; gives the exit status. Raises InputError and OSError."""
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    classifier = Classifier(options.ticket, options.data_dir)
    if classifier.is_rewound:
        print("note: a run's ticket holds the weights that it was rewound to; train it before you believe its answers")
    listening = listener(options.host, options.port)
    batcher = Batcher(classifier, options.batch_size, options.wait_ms / 1000, options.waiting)
    server = uvicorn.Server(uvicorn.Config(application(classifier, batcher), log_level="warning"))

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn stops accepting, and waits until all is answered. Then it raises the signal again for whoever heard it
    # before; by default that would end the process by the signal, and not with status 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    host = f"[{options.host}]" if ":" in options.host else options.host
    where = f"http://{host}:{listening.getsockname()[1]}"
    print(f"{options.ticket}{SAYS_WHERE}{where}; Ctrl-C ends it", flush=True)
    server.run(sockets=[listening])
    return 0


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises InputError where it cannot."""
    try:
        made = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise InputError(f"--host {host} --port {port}: {error}; choose another, or 0 for a free port") from error
    # asyncio does so for sockets of its own. Without it an answer's second packet waits until the client confirms the
    # first, which it does after 40 ms.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def measure(options: argparse.Namespace) -> int:
    """A load test; gives the exit status."""
    given = {"data-dir": options.data_dir, "wait-ms": options.wait_ms, "waiting": options.waiting}
    given |= {} if options.threads is None else {"threads": options.threads}
    arguments = [str(options.ticket), *(f"--{name}={value}" for name, value in given.items())]
    return load_test(Path(__file__), arguments, options.batch_size, options.clients, options.load_test)


def quick(options: argparse.Namespace) -> int:
    """A short load test on a ticket that a small lottery makes first."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        lottery = (
            f"--dataset digits --rounds 1 --sparsity 0.8 --iterations 9 --controls none --backend dense --out {run}"
        )
        subprocess.run([sys.executable, "-m", "lth_sparse.run", *lottery.split()], check=True)
        options.ticket, options.load_test, options.clients = run / "tickets" / "round-01.safetensors", 2.0, 8
        return measure(options)


def at_least(least: float, kind: type[int] | type[float]) -> Callable[[str], float]:
    """A reader of numbers of the command line."""

    def number(text: str) -> float:
        given = kind(text)
        if not least <= given < 2**31:
            raise argparse.ArgumentTypeError(f"expected at least {least}, given {text}")
        return given

    return number


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    count = at_least(1, int)
    made.add_argument("ticket", type=Path, nargs="?", help="a file that names its network")
    made.add_argument("--host", default="127.0.0.1", help="where to listen (default: 127.0.0.1, this machine alone)")
    made.add_argument("--port", type=at_least(0, int), default=8000, help="0 is a free one (default: 8000)")
    made.add_argument("--batch-size", type=count, default=16, help="images computed together (default: 16)")
    made.add_argument(
        "--wait-ms", type=at_least(0, float), default=2.0, help="that the first image waits for more (default: 2)"
    )
    made.add_argument("--waiting", type=count, default=64, help="images without an answer; more get 429 (default: 64)")
    made.add_argument("--threads", type=count, help="of the network (default: as PyTorch is set)")
    made.add_argument(
        "--data-dir",
        default=DataConfig().data_dir,
        help="of the data set, for a ticket without mean and deviation",
    )
    made.add_argument("--load-test", type=at_least(0, float), metavar="SECONDS", help="send images, print a table")
    made.add_argument("--clients", type=count, default=32, help="of the load test (default: 32)")
    made.add_argument("--quick", action="store_true", help="a short load test on a small ticket that is made first")
    return made


def main() -> int:
    """Runs the command line; gives the exit status: 2 for bad input."""
    options = parser().parse_args()
    try:
        if options.quick:
            return quick(options)
        if options.ticket is None:
            raise InputError("give a ticket, such as runs/first/tickets/round-01.safetensors, or --quick")
        return serve(options) if options.load_test is None else measure(options)
    except InputError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"{PROGRAM}: error: {error.filename}: {error.strerror}", file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
