"""The directory of a run: what is written under `--out`, each file whole or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from lth_sparse import sealed
from lth_sparse.errors import InputError
from lth_sparse.files import write_atomically
from lth_sparse.record import Record, table

GENERATIONS = 2
WRITTEN = ("config.json", "rounds.csv", "record.json", "report.html", "tickets", "plots", "state")


class RunDirectory:
    """`config.json`, the tables, `tickets/`, and `state/`, which holds what `--resume` needs until the run is done.

    `say` receives a line for each state file that is refused.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.path = path
        self._say = say
        self._states = path / "state"

    def holds_a_run(self) -> bool:
        """Whether `config.json` of a run is there."""
        return (self.path / "config.json").is_file()

    def refuse_if_taken(self) -> None:
        """Raises InputError when something is in the way of a new run here. Writes nothing."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--out {self.path} is a file; give a directory")
        if self.holds_a_run():
            raise InputError(f"--out {self.path} holds another run; add --resume to go on with it, or name another")
        taken = [name for name in WRITTEN if (self.path / name).exists()]
        if taken:
            raise InputError(f"--out {self.path} holds {', '.join(taken)}, which a run would replace; name another")

    def claim(self) -> None:
        """Makes the directory. Raises InputError when that cannot be done."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {self.path} cannot be made: {error.strerror}") from error

    def write_info(self, info: dict[str, Any]) -> None:
        """Writes `config.json`."""
        write_atomically(self.path / "config.json", (json.dumps(info, indent=2) + "\n").encode())

    def read_info(self) -> dict[str, Any]:
        """What `write_info` wrote. Raises InputError when it is not that any more."""
        path = self.path / "config.json"
        try:
            info = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}); this run cannot go on, start another") from error
        if not isinstance(info, dict) or "config" not in info:
            raise InputError(f"{path} was not written by lth_sparse; name another --out")
        return info

    def write_record(self, record: Record) -> None:
        """Writes the tables: `rounds.csv`, `curves.csv`, `layers.csv`, and all of it in `record.json`."""
        write_atomically(self.path / "curves.csv", table(record.curves).encode())
        write_atomically(self.path / "layers.csv", table(record.layers).encode())
        write_atomically(self.path / "record.json", (json.dumps(record.to_json()) + "\n").encode())
        write_atomically(self.path / "rounds.csv", table(record.rounds).encode())

    def read_record(self) -> Record | None:
        """What `write_record` wrote last, or None."""
        path = self.path / "record.json"
        try:
            return Record.from_json(json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error}); this run cannot go on, start another") from error

    def ticket_path(self, round: int) -> Path:
        """Where the ticket of `round` lies."""
        return self.path / "tickets" / f"round-{round:02}.safetensors"

    def write_rewind(self, weights: dict[str, Tensor]) -> None:
        """Writes the rewind weights beside the states."""
        sealed.write(self._states / "rewind.safetensors", weights, {})

    def read_rewind(self) -> dict[str, Tensor] | None:
        """The rewind weights, or None when they are not there or damaged (which is said)."""
        return self._read(self._states / "rewind.safetensors", lambda tensors, _: tensors)

    def write_state(self, tensors: dict[str, Tensor], data: dict[str, Any]) -> None:
        """Adds a state and drops all but the newest two, so that a damaged one still has one before it."""
        found = self._generations()
        number = int(found[-1].stem) + 1 if found else 0
        sealed.write(self._states / f"{number:06}.safetensors", tensors, {"state": json.dumps(data)})
        for old in found[: 1 - GENERATIONS]:
            old.unlink()

    def read_state(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest state that is whole, or None when there is none. A damaged one is named and put aside."""
        for path in reversed(self._generations()):
            state = self._read(path, lambda tensors, data: (tensors, json.loads(data["state"])))
            if state is not None:
                return state
        return None

    def _generations(self) -> list[Path]:
        return sorted(self._states.glob("[0-9]*.safetensors"))

    def _read(self, path: Path, parse: Callable[[dict[str, Tensor], dict[str, str]], Any]) -> Any:
        try:
            return parse(*sealed.read(path))
        except FileNotFoundError:
            return None
        except sealed.DamagedFile as error:
            aside = path.with_suffix(".damaged")
            path.rename(aside)
            self._say(f"refused: {error}; it is kept as {aside.name}, and the run goes on from what is before it")
            return None

    def drop_states(self) -> None:
        """Removes what only an unfinished run needs."""
        shutil.rmtree(self._states, ignore_errors=True)


def numbered(parent: Path, name: str) -> Path:
    """The first of `parent/name-01`, `-02`, ... that is not there yet."""
    number = 1
    while (parent / f"{name}-{number:02}").exists():
        number += 1
    return parent / f"{name}-{number:02}"
