"""What a run says while it goes: a live line on a terminal, one plain line a round elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from lth_sparse.lottery.training import Training
from lth_sparse.storage.arms import beside
from lth_sparse.storage.record import Round
from lth_sparse.system.messages import clock, is_watched, say

STEPS_BETWEEN_UPDATES = 10


def notice(text: str) -> None:
    """A sentence that cannot be missed."""
    rule = "=" * 78
    say(f"{rule}\nNOTICE  {text}\n{rule}")


class Progress:
    """Follows one run of `rounds` rounds after the dense one."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._live = is_watched()
        self._bar: tqdm | None = None
        self._began = time.monotonic()
        self._finished_here = 0
        self._reasons: set[str] = set()

    def start(self, label: str, training: Training) -> None:
        """A training run begins, or goes on."""
        if self._live:
            self._bar = tqdm(
                total=training.total,
                initial=training.iteration,
                desc=label,
                file=sys.stderr,
                leave=False,
                dynamic_ncols=True,
                bar_format="{desc} {percentage:3.0f}%|{bar}|{postfix}, {remaining} left in this training",
            )

    def step(self, training: Training) -> None:
        """A step is done."""
        if training.not_recorded and training.not_recorded not in self._reasons:
            self._reasons.add(training.not_recorded)
            if self._bar is not None:
                self._bar.clear()
            say(
                "the training step is not recorded as a CUDA graph, so its kernels are launched one by one: "
                f"{training.not_recorded}"
            )
        if self._bar is None or training.iteration % STEPS_BETWEEN_UPDATES:
            return
        self._bar.set_postfix_str(_figures(training), refresh=False)
        self._bar.update(training.iteration - self._bar.n)

    def stop(self) -> None:
        """The training run is over."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def round_done(self, row: Round, dense: Round, images_per_second: float) -> None:
        """A round is over: its line, with the time that the rest will take at the pace so far."""
        self._finished_here += 1
        pace = (time.monotonic() - self._began) / self._finished_here
        against = "" if row.round == 0 else f" (dense {dense.accuracy_retrained:.2%})"
        controls = "".join(f", {arm.words} {accuracy:.2%}" for arm, accuracy in beside(row))
        say(
            f"round {row.round}/{self._rounds}: {row.density:.1%} of the weights left, epoch {row.epochs}, "
            f"loss {row.train_loss:.4f}, test accuracy {row.accuracy_retrained:.2%}{against}{controls}, "
            f"{images_per_second:,.0f} images/s, {clock(pace * (self._rounds - row.round))} left"
        )


def _figures(training: Training) -> str:
    parts = [f"epoch {training.epoch}"]
    if training.curve:
        point = training.curve[-1]
        parts += [f"loss {point.train_loss:.4f}", f"accuracy {point.validation_accuracy:.2%}"]
    return ", ".join([*parts, f"{training.images_per_second:,.0f} images/s"])
