"""A whole iterative lottery under `auto` against masked dense PyTorch: `python -m bench.lottery`, `make lottery`.

Both play every round for real, a round of each in turn in one process, on the same images from the same weights, each
in the memory format that its step is faster in, which is measured however short a training is: the wall time of a round
is all that it does (training, evaluations, pruning, proofs, timing; for `auto` choosing and packing too), and the
accuracies are those of `python -m lth_sparse.run` with the same choices.

Pruned is as open_lth prunes, 20 % a round by magnitude among all layers, where the command line says nothing else.

`--extrapolate` is for trainings that would take too long: a short lottery (10 steps a training) gives masks pruned by
magnitude, on each of which steps of both sides are timed in turn, and the time of a round is that of a step by the
number of steps that the settings ask for. Nothing but steps is in it, and no accuracy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from bench.lottery.extrapolation import EXTRAPOLATED, extrapolated
from bench.lottery.played import SIDES, play, with_fewer
from bench.suite import results_file
from lth_sparse import __version__, data, models
from lth_sparse.data.dataset import Dataset
from lth_sparse.nn.masks import prunable
from lth_sparse.run import options_but
from lth_sparse.settings import config
from lth_sparse.settings.checks import flag
from lth_sparse.settings.config import Config
from lth_sparse.storage import environment
from lth_sparse.storage.files import write_entries
from lth_sparse.system import allocator, home
from lth_sparse.system.command_line import device as device_called
from lth_sparse.system.command_line import exit_status
from lth_sparse.system.determinism import make_deterministic
from lth_sparse.system.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "python -m bench.lottery"
DEFAULTS = {"rounds": 15, "prune_rate": 0.2, "scope": "global", "controls": ()}
OURS = ("out", "resume", "choices", "backend", "controls", "schedule", "rewind", "criterion", "prune_at", "dynamic")
"""Options of lth_sparse.run that this command settles itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Plays, and writes the file; 2 for bad input, told in one line."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    made = argparse.ArgumentParser(
        prog=PROGRAM,
        description="times a whole lottery under auto against masked dense PyTorch",
        epilog="All options of python -m lth_sparse.run but " + ", ".join(map(flag, OURS)) + " are options here.",
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
        lambda: _play(chosen, rest, home.command(PROGRAM, given)),
        smaller="lower --batch-size or choose a smaller model",
    )


def _play(chosen: argparse.Namespace, rest: Sequence[str], command: str) -> int:
    settings = config.build(DEFAULTS | options_but(OURS, rest))
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
    about["extrapolated"] = EXTRAPOLATED if chosen.extrapolate else ""
    play_all = extrapolated if chosen.extrapolate else play
    return _write(chosen.results, about, play_all(settings, dataset, device))


def _write(folder: Path, about: dict[str, Any], rows: list[dict[str, Any]]) -> int:
    kind = ["extrapolated"] if about["extrapolated"] else []
    path = folder / results_file.name("lottery", about["measured_on"], about["network"]["name"], *kind)
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
