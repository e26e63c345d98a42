"""A whole iterative lottery under `auto` against masked dense PyTorch: `python -m bench.lottery`, `make lottery`.

Both play every round for real, a round of each in turn in one process, on the same images from the same weights: the
wall time of a round is all that it does (training, evaluations, pruning, proofs, timing; for `auto` choosing and
packing too), and the accuracies are those of `python -m lth_sparse.run`.

`--extrapolate` is for trainings that would take too long: a short lottery (10 steps a training) gives masks pruned by
magnitude, on each of which steps of both sides are timed in turn, and the time of a round is that of a step by the
number of steps that the settings ask for. Nothing but steps is in it, and no accuracy.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.training_state import measured
from bench.turns import Turns
from lth_sparse import __version__, data, models
from lth_sparse.backends.auto import remembering
from lth_sparse.backends.choices import Choices
from lth_sparse.data.batches import Batches
from lth_sparse.data.dataset import Dataset, Split
from lth_sparse.lottery.progress import Progress
from lth_sparse.lottery.rounds import Lottery
from lth_sparse.lottery.training import Training, length
from lth_sparse.nn import sparsify
from lth_sparse.nn.masks import prunable
from lth_sparse.run import make_deterministic, parser
from lth_sparse.settings import config
from lth_sparse.settings.config import Config
from lth_sparse.storage import environment
from lth_sparse.storage.files import slug, write_entries
from lth_sparse.storage.record import STEP, Record
from lth_sparse.storage.run_directory import RunDirectory
from lth_sparse.storage.ticket import load_ticket, read_ticket
from lth_sparse.system import allocator
from lth_sparse.system.command_line import device as device_called
from lth_sparse.system.command_line import exit_status
from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import say
from lth_sparse.system.timing import FEWEST_STEPS, MOST_STEPS

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "python -m bench.lottery"
DEFAULTS = {"rounds": 15, "prune_rate": 0.2, "control": "none"}
SIDES = ("dense", "auto")
SHORT_TRAINING = 10
SHORT_EVALUATION = 256
"""Steps of a training, and images of a validation and a test set, where only steps are timed."""
_EXTRAPOLATED = (
    f"from {FEWEST_STEPS} to {MOST_STEPS} measured steps of each side a round, timed in turn, on masks pruned by "
    f"magnitude in a lottery of {SHORT_TRAINING} steps a training"
)
OURS = ("out", "resume", "choices", "backend", "control")
"""Options of lth_sparse.run that this command settles itself."""


class Side:
    """One of the two lotteries, and the seconds of its rounds. `backend`: "dense" or "auto"."""

    def __init__(
        self,
        backend: str,
        settings: Config,
        dataset: Dataset,
        network: models.Network,
        choices: Choices,
        device: torch.device,
        folder: Path,
    ) -> None:
        self.store = RunDirectory(folder / backend, say)
        self.record = Record()
        self.wall_seconds: list[float] = []
        self._turns: Turns | None = None
        self._lottery = Lottery(
            settings, dataset, network, backend, choices, device, self.store, Progress(settings.pruning.rounds),
            lambda sha256: None, self._round_over,
        )  # fmt: skip

    def play(self, turns: Turns) -> None:
        """All rounds, the other side's in between."""
        self._turns = turns
        with self.store.held():
            self.record = self._lottery.run(resume=False)

    def _round_over(self, record: Record) -> None:
        assert self._turns is not None
        self.wall_seconds.append(self._turns.pass_on())

    def trained_by(self) -> dict[int, str]:
        """Round -> the backend that trained it, as far as auto chose it."""
        return {row.round: row.backend for row in self.record.chosen if row.operation == STEP}


def play(settings: Config, dataset: Dataset, device: torch.device, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row a round, of the sides called `names`, the last of which is auto."""
    network = models.Network(settings.model, dataset.image_shape, len(dataset.classes))
    choices = Choices()
    with tempfile.TemporaryDirectory() as folder, remembering(choices):
        # Both are given the same choices: `remembering` is the process's, and only auto makes any.
        sides = {name: Side(name, settings, dataset, network, choices, device, Path(folder)) for name in names}
        Turns([side.play for side in sides.values()]).run()
        auto = sides["auto"]
        trained_by = auto.trained_by()
        rows = []
        for round, row in enumerate(auto.record.rounds):
            by = {"dense": "dense", "auto": trained_by.get(round, "auto")}
            memory = memory_of(settings, dataset, device, auto.store.ticket_path(round), by)
            found = {
                name: {
                    "accuracy": side.record.rounds[round].accuracy_retrained,
                    "training_seconds": side.record.rounds[round].seconds,
                    "wall_seconds": side.wall_seconds[round],
                }
                for name, side in sides.items()
            }
            rows.append(
                {
                    "round": round,
                    "density": row.density,
                    "live_weights": row.live_weights,
                    "iterations": row.iterations - (settings.pruning.rewind_iteration if round else 0),
                    "step_ms": row.step_ms,
                    "dense_step_ms": row.dense_step_ms,
                    "trained_by": by["auto"],
                    "sides": {name: found.get(name, {}) | memory[name] for name in SIDES},
                }
            )
    return rows


def memory_of(
    settings: Config, dataset: Dataset, device: torch.device, ticket: Path, trained_by: dict[str, str]
) -> dict[str, dict[str, int]]:
    """Side -> what training the ticket held, by the backend that trained it."""

    def training(backend: str) -> Training:
        model = load_ticket(ticket).to(device).to(memory_format=layout)
        if backend != "dense":
            model = sparsify(model, masks, backend)
        batches = Batches(images, settings.training.batch_size, "none", 0)
        return Training(model, masks, images, batches, settings.training, (0, "memory"))

    layout = models.faster_layout(load_ticket(ticket))
    images = dataset.to(device, layout)
    masks = {name: mask.to(device) for name, mask in read_ticket(ticket).masks.items()}
    return {side: measured(partial(training, backend), masks, device) for side, backend in trained_by.items()}


def extrapolated(settings: Config, dataset: Dataset, device: torch.device) -> list[dict[str, Any]]:
    """The same rows, their seconds worked out of measured steps."""
    few = with_fewer(dataset, SHORT_EVALUATION)
    training = replace(settings.training, epochs=None, iterations=SHORT_TRAINING, evaluate_every=SHORT_TRAINING)
    pruning = replace(settings.pruning, rewind_iteration=0)
    rows = play(replace(settings, training=training, pruning=pruning), few, device, ["auto"])
    total = length(settings.training, Batches(dataset, settings.training.batch_size, "none", 0).per_epoch)
    for row in rows:
        row["iterations"] = total - (settings.pruning.rewind_iteration if row["round"] else 0)
        for side, milliseconds in (("dense", row["dense_step_ms"]), ("auto", row["step_ms"])):
            kept = {name: value for name, value in row["sides"][side].items() if name.endswith("_bytes")}
            row["sides"][side] = {"training_seconds": row["iterations"] * milliseconds / 1000} | kept
    return rows


def with_fewer(dataset: Dataset, images: int) -> Dataset:
    """`dataset` with so many test images, and at most as many to validate on, taken evenly: they may be sorted."""

    def part(split: Split) -> Split:
        step = max(1, len(split) // images)
        return Split(split.images[::step][:images], split.labels[::step][:images])

    return replace(dataset, validation=part(dataset.validation), test=part(dataset.test))


def main(arguments: Sequence[str] | None = None) -> int:
    """Plays, and writes the file; 2 for bad input, told in one line."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    made = argparse.ArgumentParser(
        prog=PROGRAM,
        description="times a whole lottery under auto against masked dense PyTorch",
        epilog="All options of python -m lth_sparse.run but "
        + ", ".join(map(config.flag, OURS))
        + " are options here.",
        allow_abbrev=False,
    )
    made.add_argument("--results", type=Path, default=ROOT / "bench" / "results", metavar="DIR")
    made.add_argument("--extrapolate", action="store_true", help="time steps, and work out the rest")
    made.add_argument(
        "--test-images",
        type=int,
        metavar="N",
        help="evaluate on so many images: a short training is not to be lost in it",
    )
    made.add_argument("--rehearse", action="store_true", help="say in the file that its times mean nothing")
    chosen, rest = made.parse_known_args(given)
    allocator.keep_freed_memory()
    return exit_status(
        PROGRAM,
        lambda: _play(chosen, rest, shlex.join([*PROGRAM.split(), *given])),
        smaller="lower --batch-size or choose a smaller model",
    )


def _play(chosen: argparse.Namespace, rest: Sequence[str], command: str) -> int:
    options = vars(parser().parse_args(rest))
    if settled := [config.flag(name) for name in OURS if name in options]:
        raise InputError(f"{', '.join(settled)}: this command settles it itself")
    settings = config.build(DEFAULTS | options)
    device = device_called(settings.device)
    if device.type == "cuda":
        make_deterministic()
    dataset = data.load(settings.data, settings.seed, models.minimum_size(settings.model))
    if chosen.test_images is not None:
        if chosen.test_images < 1:
            raise InputError(f"--test-images {chosen.test_images}: expected at least 1")
        dataset = with_fewer(dataset, chosen.test_images)
    about = _about(settings, dataset, device, command)
    about["rehearsal"] = "too short for its times to mean anything" if chosen.rehearse else ""
    about["extrapolated"] = _EXTRAPOLATED if chosen.extrapolate else ""
    play_all = extrapolated if chosen.extrapolate else partial(play, names=SIDES)
    return _write(chosen.results, about, play_all(settings, dataset, device))


def _write(folder: Path, about: dict[str, Any], rows: list[dict[str, Any]]) -> int:
    here = about["measured_on"]
    machine = here["processor"] if here["device"] == "cpu" else here["device"]
    parts = ["lottery", machine, about["network"]["name"], "extrapolated" if about["extrapolated"] else ""]
    path = folder / f"{slug(' '.join(parts))}.json"
    write_entries(path, about, {"rounds": rows})
    totals = {side: sum(row["sides"][side]["training_seconds"] for row in rows) for side in SIDES}
    print(
        f"{about['extrapolated'] and 'extrapolated: '}training took {totals['dense']:.0f} s by masked dense, "
        f"{totals['auto']:.0f} s under auto: {totals['dense'] / totals['auto']:.2f} times faster; written to {path}"
    )
    return 0


def _about(settings: Config, dataset: Dataset, device: torch.device, command: str) -> dict[str, Any]:
    with torch.device("meta"):
        model = models.build(models.Network(settings.model, dataset.image_shape, len(dataset.classes)), seed=0)
    return {
        "measured_on": environment.describe(device, __version__),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": command,
        "config": settings.to_json(),
        "dataset": {
            "name": dataset.name, "notice": dataset.notice, "image_shape": list(dataset.image_shape),
            "train": len(dataset.train), "validation": len(dataset.validation), "test": len(dataset.test),
        },
        "network": {
            "name": settings.model,
            "weights": sum(weight.numel() for weight in prunable(model).values()),
        },
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
