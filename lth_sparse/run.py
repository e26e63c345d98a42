"""`python -m lth_sparse.run`: finds lottery tickets, and leaves tickets, tables, plots and a report."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import Field, replace
from pathlib import Path
from typing import Any

import torch

from lth_sparse import __version__, data, models, report
from lth_sparse.backends import triton
from lth_sparse.backends.auto import candidates
from lth_sparse.backends.choices import Choices
from lth_sparse.backends.registry import backends, get, resolve
from lth_sparse.lottery.progress import Progress, notice
from lth_sparse.lottery.rounds import Lottery
from lth_sparse.nn.masks import prunable
from lth_sparse.settings import config
from lth_sparse.settings.config import Config
from lth_sparse.settings.presets import INTERPRETED, PRESETS
from lth_sparse.storage import environment
from lth_sparse.storage.record import Record
from lth_sparse.storage.run_directory import RunDirectory, numbered, read_choices
from lth_sparse.system import allocator, home
from lth_sparse.system.command_line import Parser, exit_status, fractions
from lth_sparse.system.command_line import device as device_called
from lth_sparse.system.errors import BackendError, InputError
from lth_sparse.system.messages import say

PROGRAM = "python -m lth_sparse.run"
SECONDS_BETWEEN_REPORTS = 30.0


def _help(setting: Field[Any]) -> str:
    """The sentence of the setting, with the values that it may take."""
    by_name = {"model": models.names(), "dataset": ["auto", *data.names()], "backend": list(backends())}
    choices = setting.metadata["choices"] or by_name.get(setting.name)
    text = setting.metadata["help"] + (f" ({', '.join(choices)})" if choices else "")
    return text.replace("%", "%%")


def parser() -> argparse.ArgumentParser:
    """The command line, made from the settings of `lth_sparse.settings.config`."""
    made = Parser(
        prog=PROGRAM,
        description="Finds lottery tickets: trains a network, prunes it, rewinds it, retrains it, round after round.",
        epilog=f"presets: {', '.join(PRESETS)}. A preset sets the other options; what you give yourself wins.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for setting, kind, _ in config.settings():
        made.add_argument(
            config.flag(setting.name),
            type=fractions if kind is tuple else home.from_home if setting.name == "data_dir" else kind,
            metavar=setting.name.upper() if kind is not tuple else "FRACTIONS",
            help=_help(setting),
        )
    made.add_argument("--out", metavar="DIR", help="where the run is written (default: runs/PRESET-NN)")
    made.add_argument(
        "--choices",
        metavar="FILE",
        help="choices.json of an earlier run with --backend auto: what it chose is not measured again, so that this "
        "run gives the same numbers",
    )
    made.add_argument("--resume", action="store_true", help="go on with the interrupted run under --out")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; gives its exit status: 0 done, 2 bad input, told in one line on standard error."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    allocator.keep_freed_memory()

    def work() -> int:
        _run(vars(parser().parse_args(given)), home.command(PROGRAM, given))
        return 0

    return exit_status(
        PROGRAM,
        work,
        on_disk="; what was finished before is whole, see --resume",
        smaller="lower --batch-size or choose a smaller model",
        interrupted="interrupted; the same command with --resume and this --out goes on from the last finished epoch",
    )


def _run(given: dict[str, Any], command: str) -> None:
    resume = given.pop("resume", False)
    out: str | None = given.pop("out", None)
    choices_file: str | None = given.pop("choices", None)
    if out == "":
        raise InputError("--out is empty: give a directory")
    if resume and out is None:
        raise InputError("--resume goes on with the run under --out: give --out DIR too")
    store = RunDirectory(Path(out), say) if out is not None else None
    before: dict[str, Any] | None = None
    if store is not None and resume and store.holds_a_run():
        before = store.read_info()
        settings = _settings_of(before, given)
        _interpret_if_needed(settings)
    else:
        settings = config.build(given)
        if _interpret_if_needed(settings):
            settings = config.build(given, INTERPRETED)
        if store is not None:
            store.refuse_if_taken()
        if resume:
            say(f"there is no run under {out} yet: starting it")
    device = device_called(settings.device)
    if device.type == "cuda":
        make_deterministic()
    backend = resolve(settings.backend)
    if reason := get(backend).refuses(device):
        raise BackendError(f'backend "{backend}" cannot be used for this run: {reason}')
    choices = _choices(Path(choices_file), backend, device) if choices_file is not None else Choices()
    dataset = data.load(settings.data, settings.seed, models.minimum_size(settings.model))
    network = models.Network(settings.model, dataset.image_shape, len(dataset.classes))
    info = _describe(settings, command, backend, dataset, network, device)
    settings = replace(settings, data=replace(settings.data, dataset=dataset.name))
    if before is not None:
        _refuse_if_changed(before, info)
        info = before
    if info["dataset"]["notice"]:
        notice(info["dataset"]["notice"])
    if store is None:
        store = RunDirectory(numbered(Path("runs"), settings.preset.replace("/", "-")), say)
    with store.held():
        record = _played(settings, dataset, network, backend, choices, device, store, info, before is not None)
        report.write(store.path, info, record)
        store.drop_states()
    best, dense = record.best_ticket(), record.rounds[0]
    print(
        f"{dataset.name}: round {best.round}, {best.density:.1%} of the weights left: test accuracy "
        f"{best.accuracy_retrained:.2%}, dense {dense.accuracy_retrained:.2%}; "
        f"ticket {store.ticket_path(best.round)}, report {store.path / 'report.html'}"
    )


def _played(
    settings: Config,
    dataset: data.Dataset,
    network: models.Network,
    backend: str,
    choices: Choices,
    device: torch.device,
    store: RunDirectory,
    info: dict[str, Any],
    resume: bool,
) -> Record:
    """The whole record of the run, every round of it played, now or before."""
    reported = time.monotonic()

    def on_rewind_saved(sha256: str) -> None:
        info["rewind"] = {"iteration": settings.pruning.rewind_iteration, "sha256": sha256}
        store.write_info(info)

    def on_round(record: Record) -> None:
        nonlocal reported
        if time.monotonic() - reported > SECONDS_BETWEEN_REPORTS:
            report.write(store.path, info, record)
            reported = time.monotonic()

    if resume and not store.has_states():
        record = store.read_record()
        if len(record.rounds) > settings.pruning.rounds:
            say(f"the run under {store.path} is finished already")
            return record
    if resume and store.choices_path.exists():
        kept = _choices(store.choices_path, backend, device)
        if not kept.include(choices):
            raise InputError(
                f"--choices: the run under {store.path} has other choices in its choices.json; --resume goes on with a "
                "run as it is, leave the option out or start another run"
            )
        choices = kept
    progress = Progress(settings.pruning.rounds)
    lottery = Lottery(settings, dataset, network, backend, choices, device, store, progress, on_rewind_saved, on_round)
    if not resume:
        store.write_info(info)
    of = f" (of {', '.join(candidates())})" if backend == "auto" else ""
    say(f"{settings.model} on {dataset.name}, backend {backend}{of}, {device}; writing to {store.path}")
    if backend == "triton" and triton.interpreted():
        training = settings.training
        size = f"{training.iterations} steps" if training.iterations else f"{training.epochs} epochs"
        say(
            "Triton's interpreter runs the kernels on the CPU, thousands of times slower: that shows whether they are "
            f"right, not how fast they are. The run has {size} a training and {settings.pruning.rounds} rounds "
            "(--iterations, --rounds)"
        )
    return lottery.run(resume)


def _choices(path: Path, backend: str, device: torch.device) -> Choices:
    """What the auto backend chose in the run that left `path`."""
    if backend != "auto":
        raise InputError(f"--choices {path} is for --backend auto; this run has --backend {backend}")
    choices = read_choices(path)
    for name in sorted(choices.backends()):
        reason = backends().get(name, "there is no such backend")
        if reason:
            raise InputError(f'{path} chose backend "{name}", which cannot be used here: {reason}')
    threads = torch.get_num_threads()
    strange = choices.made_elsewhere(device.type, threads)
    if strange:
        say(
            f"{strange} of the {len(choices)} choices in {path} were made on another device or with other than the "
            f"{threads} threads here: they do not apply, and what they chose is measured again"
        )
    return choices


def _settings_of(info: dict[str, Any], given: dict[str, Any]) -> Config:
    """The settings of an interrupted run, which everything given again has to match."""
    try:
        settings = Config.from_json(info["config"])
        config.check(settings)
        # "auto" was settled when the run began, and may come out differently today.
        resumed = replace(settings, data=replace(settings.data, dataset=str(info["dataset"]["name"])))
    except (TypeError, KeyError, AttributeError, InputError) as error:
        raise InputError(
            f"config.json of this run was changed, or is of another version of lth_sparse ({error}); this run cannot "
            "go on, start another"
        ) from error
    recorded = _flat(settings.to_json())
    for name, value in given.items():
        if value != recorded[name]:
            raise InputError(
                f"{config.flag(name)} {value}: the run under --out has {recorded[name]}; --resume goes on with a run "
                "as it is, leave the option out or start another run"
            )
    return resumed


def _refuse_if_changed(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises InputError when what an interrupted run began with is not what it would go on with."""
    for section, key, what in (
        ("dataset", "sha256", "the images (their SHA-256)"),
        ("network", "weights", "the number of weights"),
        ("environment", "device", "the device"),
    ):
        began, goes_on = before.get(section, {}).get(key), now[section][key]
        if began != goes_on:
            raise InputError(
                f"--resume: {what} was {began} when the run began and is {goes_on} now; the rest would not be "
                "the same run, start another"
            )
    for key in ("torch", "threads", "processor"):
        if before["environment"].get(key) != now["environment"][key]:
            say(
                f"{key} was {before['environment'].get(key)} when the run began and is {now['environment'][key]} now: "
                "results may differ in their last bits"
            )


def _interpret_if_needed(settings: Config) -> bool:
    """Whether this run's kernels are Triton's and its device the CPU: then Triton's interpreter runs them."""
    if settings.backend != "triton" or device_called(settings.device).type != "cpu":
        return False
    triton.interpret()
    return True


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def make_deterministic() -> None:
    """Makes a GPU give the same bits again, as a CPU does by itself. Has to come before the first use of the GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would fill every new tensor, outputs and workspaces included, before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _describe(
    settings: Config,
    command: str,
    backend: str,
    dataset: data.Dataset,
    network: models.Network,
    device: torch.device,
) -> dict[str, Any]:
    with torch.device("meta"):  # Only counted, so without memory for its weights.
        model = models.build(network, seed=0)
    return {
        "command": command,
        "config": settings.to_json(),
        "backend": backend,
        "dataset": {
            "name": dataset.name,
            "notice": dataset.notice,
            "sha256": dataset.sha256(),
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
            "image_shape": list(dataset.image_shape),
            "classes": list(dataset.classes),
        },
        "network": {
            "name": network.name,
            "weights": sum(weight.numel() for weight in prunable(model).values()),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        },
        "rewind": None,
        "environment": environment.describe(device, __version__),
    }


if __name__ == "__main__":
    sys.exit(main())
