"""`python -m lth_sparse.run`: finds lottery tickets, and leaves tickets, tables, plots and a report."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from lth_sparse import __version__, config, data, environment, models, report
from lth_sparse.backends.base import BackendError
from lth_sparse.backends.registry import resolve
from lth_sparse.config import Config
from lth_sparse.errors import InputError, ProofError
from lth_sparse.lottery import Lottery
from lth_sparse.masks import prunable
from lth_sparse.presets import PRESETS
from lth_sparse.progress import Progress, notice, say
from lth_sparse.store import RunDirectory, numbered
from lth_sparse.suggest import nearest

PROGRAM = "python -m lth_sparse.run"
UNEXPECTED = 1
BAD_INPUT = 2
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ").split()[0]
        if unknown != message.split()[0]:
            message += nearest(unknown, self._option_string_actions)
        raise InputError(message)


def _fractions(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(",") if part)


def parser() -> argparse.ArgumentParser:
    """The command line, made from the settings of `lth_sparse.config`."""
    made = _Parser(
        prog=PROGRAM,
        description="Finds lottery tickets: trains a network, prunes it, rewinds it, retrains it, round after round.",
        epilog=f"presets: {', '.join(PRESETS)}. A preset sets the other options; what you give yourself wins.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for setting, kind, _ in config.settings():
        made.add_argument(
            config.flag(setting.name),
            type=_fractions if kind is tuple else kind,
            metavar=setting.name.upper() if kind is not tuple else "FRACTIONS",
            help=setting.metadata["help"].replace("%", "%%"),
        )
    made.add_argument("--out", type=Path, metavar="DIR", help="where the run is written (default: runs/PRESET-NN)")
    made.add_argument("--resume", action="store_true", help="go on with the interrupted run under --out")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; gives its exit status: 0 done, 2 bad input, told in one line on standard error."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: say(f"warning: {message}")
            _run(vars(parser().parse_args(given)), shlex.join([*PROGRAM.split(), *given]))
    except (InputError, BackendError, ProofError) as error:
        return _failed(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or error}; what was finished before is whole, see --resume")
    except (MemoryError, torch.OutOfMemoryError) as error:
        return _failed(f"out of memory ({' '.join(str(error).split())}); lower --batch-size or choose a smaller model")
    except Exception as error:  # A mistake of ours: its traceback is kept for a report, not thrown at the user.
        path = Path(tempfile.gettempdir()) / f"lth_sparse-traceback-{os.getpid()}.txt"
        path.write_text(traceback.format_exc())
        reason = " ".join(str(error).split())
        say(f"{PROGRAM}: unexpected {type(error).__name__}: {reason}; please report it with {path}")
        return UNEXPECTED
    except KeyboardInterrupt:
        say("interrupted; the same command with --resume and this --out goes on from the last finished epoch")
        return INTERRUPTED
    return 0


def _failed(message: str) -> int:
    say(f"{PROGRAM}: error: {message}")
    return BAD_INPUT


def _run(given: dict[str, Any], command: str) -> None:
    resume = given.pop("resume", False)
    out: Path | None = given.pop("out", None)
    if resume and out is None:
        raise InputError("--resume goes on with the run under --out: give --out DIR too")
    before: dict[str, Any] | None = None
    if out is None:
        settings = config.build(given)
        store = RunDirectory(numbered(Path("runs"), settings.preset.replace("/", "-")), say)
    else:
        store = RunDirectory(out, say)
        if resume and store.holds_a_run():
            before = store.read_info()
            settings = _settings_of(before, given)
        else:
            settings = config.build(given)
            if resume:
                say(f"there is no run under {out} yet: starting it")
        if before is None:
            store.refuse_if_taken()
    device = _device(settings.device)
    backend = resolve(settings.backend)
    smallest = models.minimum_size(settings.model)
    dataset = data.load(settings.data, settings.seed, smallest)
    shown = before["dataset"]["notice"] if before else dataset.notice
    if shown:
        notice(shown)
    network = models.Network(settings.model, dataset.image_shape, len(dataset.classes))
    progress = Progress(settings.pruning.rounds)
    info = before or _describe(settings, command, backend, dataset, network, device)

    def on_rewind_saved(sha256: str) -> None:
        info["rewind"] = {"iteration": settings.pruning.rewind_iteration, "sha256": sha256}
        store.write_info(info)

    lottery = Lottery(settings, dataset, network, device, store, progress, on_rewind_saved)
    if before is None:
        store.claim()
        store.write_info(info)
    record = store.read_record() if before else None
    if record is not None and len(record.rounds) > settings.pruning.rounds:
        say(f"the run under {store.path} is finished already")
        store.write_record(record)  # A kill may have come between its tables.
    else:
        say(f"{settings.model} on {dataset.name}, backend {backend}, {device}; writing to {store.path}")
        record = lottery.run(resume=before is not None)
    report.write(store.path, info, record)
    store.drop_states()
    best, dense = record.best_ticket(), record.rounds[0]
    print(
        f"{dataset.name}: round {best.round}, {best.density:.1%} of the weights left: test accuracy "
        f"{best.accuracy_retrained:.2%}, dense {dense.accuracy_retrained:.2%}; "
        f"ticket {store.ticket_path(best.round)}, report {store.path / 'report.html'}"
    )


def _settings_of(info: dict[str, Any], given: dict[str, Any]) -> Config:
    """The settings of an interrupted run, which everything given again has to match."""
    try:
        settings = Config.from_json(info["config"])
    except TypeError as error:
        raise InputError(f"config.json of this run does not fit this version of lth_sparse: {error}") from error
    recorded = _flat(settings.to_json())
    for name, value in given.items():
        if value != recorded[name]:
            raise InputError(
                f"{config.flag(name)} {value}: the run under --out has {recorded[name]}; --resume goes on with a run "
                "as it is, leave the option out or start another run"
            )
    # "auto" was settled when the run began, and may come out differently today.
    return replace(settings, data=replace(settings.data, dataset=info["dataset"]["name"]))


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name}: expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: this machine shows PyTorch {torch.cuda.device_count()} GPUs; choose cpu")
    return device


def _describe(
    settings: Config,
    command: str,
    backend: str,
    dataset: data.Dataset,
    network: models.Network,
    device: torch.device,
) -> dict[str, Any]:
    model = models.build(network, seed=0)
    return {
        "command": command,
        "config": settings.to_json(),
        "backend": backend,
        "dataset": {
            "name": dataset.name,
            "notice": dataset.notice,
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
