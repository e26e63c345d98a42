"""A whole run, as `python -m lth_sparse.run` asks for one: begun or gone on with, played, reported."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lth_sparse import data, models, report
from lth_sparse.backends import triton, winograd
from lth_sparse.backends.auto import candidates
from lth_sparse.backends.choices import Choices
from lth_sparse.backends.registry import get, resolve
from lth_sparse.lottery.beginning import initial
from lth_sparse.lottery.choosing import Chooser, choices_of
from lth_sparse.lottery.description import describe, settings_of, taken_up
from lth_sparse.lottery.events import Listener
from lth_sparse.lottery.progress import notice
from lth_sparse.lottery.rounds import Callbacks, Rounds
from lth_sparse.lottery.task import Task
from lth_sparse.lottery.task_trainer import TaskTrainer
from lth_sparse.lottery.ticket_trainer import TicketTrainer, given_ticket
from lth_sparse.report.words import several
from lth_sparse.settings import config
from lth_sparse.settings.config import Config
from lth_sparse.settings.presets import INTERPRETED
from lth_sparse.storage.lock import locked
from lth_sparse.storage.record import Record
from lth_sparse.storage.run_directory import RunDirectory, numbered
from lth_sparse.system import command_line, processes, torchrun
from lth_sparse.system.determinism import make_deterministic
from lth_sparse.system.errors import BackendError, InputError
from lth_sparse.system.messages import say

SECONDS_BETWEEN_REPORTS = 30.0


@dataclass(frozen=True)
class Request:
    """`given`: settings by name, as the command line had them; `file`: under those; `defaults`: under these, over a
    preset's, where a run begins. `command`: that line. `out`: where to write, None for a new place under runs/.
    `choices`: the choices.json whose choices are taken over. `listeners` are told what happens. `ticket`: the one that
    is trained in round 1, in place of what pruning finds; the settings have one round then. `check_finite`: whether
    each step looks for what is not finite. `held`: this process holds a directory in which `out` lies."""

    given: Mapping[str, Any]
    command: str
    out: Path | None = None
    resume: bool = False
    choices: Path | None = None
    file: Mapping[str, Any] = field(default_factory=dict)
    listeners: Sequence[Listener] = ()
    ticket: Path | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    check_finite: bool = False
    held: bool = False

    @contextmanager
    def directory(self, name: str) -> Iterator[Path]:
        """`out`, or a new directory under runs/ of this name: held for this process alone meanwhile, if the request
        does not say that this is done already."""
        out = self.out or numbered(Path("runs"), name)
        with nullcontext() if self.held else locked(out, say):
            yield out


def play(request: Request) -> tuple[RunDirectory, Record]:
    """Plays what is still to be played, and leaves the whole run and its report in the directory that it gives.

    Raises InputError, BackendError or ProofError with a sentence for the user, and leaves what was finished.
    """
    store = RunDirectory(request.out, say) if request.out is not None else None
    before: dict[str, Any] | None = None
    if store is not None and request.resume and store.holds_a_run():
        before = store.read_info()
        settings = settings_of(before, {**request.file, **request.given})
        _interpret_if_needed(settings)
    else:
        settings = settled(request)
        if store is not None:
            store.refuse_if_taken()
        if request.resume:
            say(f"there is no run under {request.out} yet: starting it")
    largest = settings.winograd or winograd.setting()
    with winograd.limited(largest):
        return _play_settled(request, replace(settings, winograd=largest), store, before)


def settled(request: Request) -> Config:
    """The settings of a run that begins. Raises InputError."""
    settings = config.build(request.given, request.defaults, request.file)
    if _interpret_if_needed(settings):
        return config.build(request.given, {**request.defaults, **INTERPRETED}, request.file)
    return settings


def _play_settled(
    request: Request, settings: Config, store: RunDirectory | None, before: dict[str, Any] | None
) -> tuple[RunDirectory, Record]:
    """The same, `before` being what an earlier command left of the run's description in `store`."""
    device = command_line.device(settings.device)
    if device.type == "cuda":
        make_deterministic()
    backend = resolve(settings.backend)
    if reason := get(backend).refuses(device):
        raise BackendError(f'backend "{backend}" cannot be used for this run: {reason}')
    choices = choices_of(request.choices, backend, device) if request.choices is not None else Choices()
    dataset = torchrun.one_before_others(
        lambda: data.load(settings.data, settings.seed, models.minimum_size(settings.model))
    )
    network = models.Network(settings.model, dataset.image_shape, len(dataset.classes))
    model, checkpoint_sha256 = initial(settings, network)
    info = describe(settings, request.command, backend, dataset, model, checkpoint_sha256, device)
    processes.refuse_different("the images", info["dataset"]["sha256"])
    settings = replace(settings, data=replace(settings.data, dataset=dataset.name))
    given = given_ticket(request.ticket, model) if request.ticket is not None else None
    if given is not None:
        info["ticket"] = given.described
    if before is not None:
        _refuse_another_kind(before, info, request.out)
        info = taken_up(before, info)
    if info["dataset"]["notice"]:
        notice(info["dataset"]["notice"])
    if store is None:
        store = RunDirectory(numbered(Path("runs"), settings.preset.replace("/", "-")), say)
    with store.held(new=before is None):
        if before is not None:
            # Another process may have gone on with the run since.
            info["rewind"] = store.read_info().get("rewind")
        record = store.finished(settings.pruning.rounds) if before is not None else None
        if record is not None:
            store.name_damaged_tickets(len(record.rounds))
            say(f"the run under {store.path} is finished already")
        else:
            if before is not None and store.has_choices():
                choices = _kept_choices(store, choices, backend, device)
            task = Task(settings, dataset, network, device, model)
            chooser = Chooser(task, backend, choices, store)
            trainer = (
                TaskTrainer(task, chooser, store, request.listeners, request.check_finite)
                if given is None
                else TicketTrainer(task, chooser, store, given.mapped, request.listeners, request.check_finite)
            )
            record = _play(task, trainer, backend, store, info, resume=before is not None)
        processes.only_first(report.write)(store.path, info, record)
        store.drop_states()
    return store, record


def _refuse_another_kind(before: dict[str, Any], now: dict[str, Any], out: Path | None) -> None:
    for name, (one, other) in {"run": (now, before), "transfer": (before, now)}.items():
        if "ticket" in other and "ticket" not in one:
            wanted = "lth_sparse.transfer" if name == "run" else "lth_sparse.run"
            raise InputError(f"--out {out} is no {name}: python -m {wanted} began it, and goes on with it")


def _interpret_if_needed(settings: Config) -> bool:
    """Whether this run's kernels are Triton's and its device the CPU: then Triton's interpreter runs them."""
    if settings.backend != "triton" or command_line.device(settings.device).type != "cpu":
        return False
    triton.interpret()
    return True


def _kept_choices(store: RunDirectory, given: Choices, backend: str, device: torch.device) -> Choices:
    kept = choices_of(store.choices_path, backend, device)
    if not kept.include(given):
        raise InputError(
            f"--choices: the run under {store.path} has other choices in its choices.json; --resume goes on with a "
            "run as it is, leave the option out or start another run"
        )
    return kept


def _play(
    task: Task, trainer: TaskTrainer, backend: str, store: RunDirectory, info: dict[str, Any], *, resume: bool
) -> Record:
    """The whole record of the run, every round of it played, now or before."""
    settings, reported = task.config, time.monotonic()

    def on_rewind_saved(sha256: str) -> None:
        info["rewind"] = {"iteration": task.rewind_iteration, "sha256": sha256}
        store.write_info(info)

    def on_round(record: Record) -> None:
        nonlocal reported
        if time.monotonic() - reported > SECONDS_BETWEEN_REPORTS:
            processes.only_first(report.write)(store.path, info, record)
            reported = time.monotonic()

    rounds = Rounds(trainer, store, Callbacks(on_rewind_saved, on_round), task.memory_format)
    if not resume:
        store.write_info(info)
    of = f" (of {', '.join(candidates())})" if backend == "auto" else ""
    say(f"{settings.model} on {task.data.name}, backend {backend}{of}, {task.device}; writing to {store.path}")
    if told := several(info):
        say(told)
    if backend == "triton" and triton.interpreted():
        training = settings.training
        size = f"{training.iterations} steps" if training.iterations else f"{training.epochs} epochs"
        say(
            "Triton's interpreter runs the kernels on the CPU, thousands of times slower: that shows whether they are "
            f"right, not how fast they are. The run has {size} a training and {settings.pruning.rounds} rounds "
            "(--iterations, --rounds)"
        )
    return rounds.play(resume)
