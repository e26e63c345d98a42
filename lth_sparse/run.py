"""`python -m lth_sparse.run`: finds lottery tickets, and leaves tickets, tables, plots and a report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from lth_sparse.experiments import coursework, replicates
from lth_sparse.lottery import options, outcome, tensorboard
from lth_sparse.lottery.events import Listener, users_listener
from lth_sparse.lottery.playing import Request, play
from lth_sparse.report import instability
from lth_sparse.report.replicates import headline, times_of_training
from lth_sparse.report.words import labelled
from lth_sparse.settings import config, file
from lth_sparse.settings.checks import flag
from lth_sparse.storage.record import Record
from lth_sparse.storage.run_directory import RunDirectory
from lth_sparse.system import allocator, command_line, home, processes, torchrun
from lth_sparse.system.command_line import Parser, resumable_status
from lth_sparse.system.errors import InputError

PROGRAM = "python -m lth_sparse.run"
EXAMPLES = (
    ("--preset paper/conv4 --controls random,reinit", "Frankle and Carbin 2019, with its two controls"),
    ("--dataset digits --iterations 200 --sparsity 0.95 --rounds 4", "within a minute, and without a network"),
    ("--out runs/quick-01 --resume", "after a kill, goes on from the last saved epoch"),
)


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """The command line, made from the settings of `lth_sparse.settings.config`."""
    made = Parser(
        program,
        "Finds lottery tickets: trains a network, prunes it, rewinds it, retrains it, round after round. A preset sets "
        "the other options; what you give yourself wins.",
        EXAMPLES,
        argument_default=argparse.SUPPRESS,
    )
    options.add(made)
    several = made.add_argument_group("more than one run")
    several.add_argument(
        "--replicates",
        type=int,
        metavar="N",
        help="play the lottery on N seeds, from --seed on, each in a directory of its own under --out, with means, "
        "95 %% intervals and differences paired by seed beside them",
    )
    several.add_argument(
        "--emulate-coursework",
        action="store_true",
        help=f"with --preset {coursework.PRESET}, which is a study of many runs: beside each the same one with the "
        "coursework's mistakes, no rewind and an optimizer that lives on",
    )
    several.add_argument(
        "--budget",
        type=command_line.duration,
        metavar="TIME",
        help=f"with --preset {coursework.PRESET}: shorten its trainings, all in proportion, so that they take "
        "about this long here, such as 90s, 20min or 1.5h",
    )
    files = made.add_argument_group("what it leaves, and what it goes on with")
    files.add_argument("--out", metavar="DIR", help="where the run is written (default: runs/PRESET-NN)")
    files.add_argument(
        "--config",
        metavar="FILE",
        help="take the settings from a run's config.json, or from JSON or YAML with the same names: over a preset's, "
        "under those of the command line",
    )
    files.add_argument("--resume", action="store_true", help="go on with the interrupted run under --out")
    files.add_argument(
        "--choices",
        metavar="FILE",
        help="choices.json of an earlier run: what it measured and chose (auto's backends, memory formats) is not "
        "measured again, so that this run gives the same numbers",
    )
    told = made.add_argument_group("who is told what happens, while it happens")
    told.add_argument(
        "--callback",
        metavar="MODULE:FUNCTION",
        help="a function of yours, called with each StepEvent, EvaluationEvent and RoundEvent of lth_sparse",
    )
    told.add_argument("--tensorboard", metavar="DIR", help="write losses, accuracies and speeds for TensorBoard")
    told.add_argument(
        "--check-finite",
        action="store_true",
        help="look at loss, gradients and weights in every step, and stop at the first that is NaN or infinite, with "
        "the layer where it began; with --resume too",
    )
    return made


def options_but(settled: Sequence[str], arguments: Sequence[str]) -> dict[str, Any]:
    """What a command line gives, for a program that settles some options itself, and all that are no settings. Raises
    InputError where it gives one of these."""
    found = vars(parser().parse_args(arguments))
    free = {setting.name for setting, *_ in config.settings()}.difference(settled)
    if given := [flag(name) for name in found if name not in free]:
        raise InputError(f"{', '.join(given)}: this command settles it itself")
    return found


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line; gives its exit status: 0 done, 2 bad input, told in one line on standard error."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    allocator.keep_freed_memory()

    def work() -> int:
        found = vars(parser(program).parse_args(given))
        if found.get("preset") == coursework.PRESET:
            torchrun.refuse_several(f"--preset {coursework.PRESET}", "start it without torchrun")
            return _coursework(found, home.command(program, given))
        if of_coursework := [flag(name) for name in ("budget", "emulate_coursework") if name in found]:
            raise InputError(
                f"{of_coursework[0]}: it belongs to --preset {coursework.PRESET}; a run alone is shortened by "
                "--iterations, and emulates by --rewind aliased"
            )
        if "replicates" in found:
            torchrun.refuse_several(
                "--replicates", "give each seed a run of its own (--seed), or start it without torchrun"
            )
            return _replicates(found, home.command(program, given))
        with torchrun.together(), ExitStack() as open_until_over:
            listeners = _listeners(found, open_until_over)
            request = _request(found, torchrun.command(home.command(program, given)), listeners)
            store, record = play(request)
            _say_what_came_out(store, store.read_info(), record)
        return 0

    return resumable_status(program, given, work, smaller="lower --batch-size or choose a smaller model")


@processes.only_first
def _say_what_came_out(store: RunDirectory, info: dict[str, Any], record: Record) -> None:
    ticket, report = store.ticket_path(record.best_ticket().round), store.path / "report.html"
    print(labelled(info, f"{outcome.accuracy(record)}; ticket {ticket}, report {report}"))
    print(outcome.speed(record, info["backend"]))
    if travelled := outcome.gradients(record):
        print(travelled)
    if record.barriers:
        print(instability.headline(record.barriers))


def _coursework(found: dict[str, Any], command: str) -> int:
    del found["preset"]
    out, resume = command_line.out_and_resume(found)
    asked = coursework.Asked(
        found,
        found.pop("iterations", None),
        found.pop("budget", None),
        found.pop("emulate_coursework", False),
        found.pop("replicates", None),
    )
    known = {setting.name for setting, *_ in config.settings()}
    if settled := [flag(name) for name in found if name in coursework.SETTLED or name not in known]:
        raise InputError(
            f"{settled[0]}: --preset {coursework.PRESET} settles it, or has no use for it; its trainings are shortened "
            "by --iterations or --budget"
        )
    directory, done = coursework.play_all(Request({}, command, out, resume), asked)
    failed = sum(bool(each.failed) for each in done)
    table, page = directory / coursework.TABLE, directory / "report.html"
    print(f"{len(done) - failed} of {len(done)} runs; {table}, {page}")
    return command_line.BAD_INPUT if failed else 0


def _replicates(found: dict[str, Any], command: str) -> int:
    seeds = found.pop("replicates")
    if told := [flag(name) for name in ("callback", "tensorboard") if name in found]:
        raise InputError(f"{told[0]}: what it is told does not say of which seed it is; leave it out, or --replicates")
    out, info, rows = replicates.play_all(_request(found, command, ()), seeds)
    print(f"{headline(rows)}\n{times_of_training(info)}")
    print(f"{out / 'summary.csv'}, {out / 'report.html'}")
    return 0


def _listeners(found: dict[str, Any], open_until_over: ExitStack) -> list[Listener]:
    """Those that the options ask for, which are taken out of them. Of several processes the first one tells them."""
    listeners: list[Listener] = []
    name, directory = found.pop("callback", None), found.pop("tensorboard", None)
    if name is not None and processes.is_first():
        listeners.append(users_listener(name))
    if directory is not None and processes.is_first():
        listeners.append(open_until_over.enter_context(tensorboard.writing(command_line.path(directory))))
    return listeners


def _request(found: dict[str, Any], command: str, listeners: Sequence[Listener]) -> Request:
    out, resume = command_line.out_and_resume(found)
    if torchrun.restarts() and out is None:
        raise InputError(
            "--out: torchrun is to start the run again where a process of it ends (--max-restarts), and what goes on "
            "has to have a name; give a directory"
        )
    choices: str | None = found.pop("choices", None)
    given_file: str | None = found.pop("config", None)
    check_finite: bool = found.pop("check_finite", False)
    return Request(
        found,
        command,
        out,
        resume or torchrun.is_restart(),
        command_line.path(choices) if choices is not None else None,
        processes.first(lambda: file.read(command_line.path(given_file))) if given_file is not None else {},
        listeners,
        check_finite=check_finite,
    )


if __name__ == "__main__":
    sys.exit(main())
