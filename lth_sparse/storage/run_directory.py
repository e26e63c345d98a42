"""The directory of a run: what is written under `--out`, each file whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lth_sparse.backends.choices import Choices
from lth_sparse.storage import sealed
from lth_sparse.storage.files import flush_directory, make_directory, write_atomically
from lth_sparse.storage.lock import InUse, locked
from lth_sparse.storage.record import Record, table
from lth_sparse.storage.ticket import read_ticket, save_ticket
from lth_sparse.system import checked_json, regular_files
from lth_sparse.system.errors import InputError
from lth_sparse.system.processes import by_first, is_first, only_first

GENERATIONS = 2
TABLES = ("rounds.csv", "curves.csv", "layers.csv")
TABLES_OF_INSTABILITY = ("instability.csv", "instability-paths.csv")
OF_SEVERAL = "replicates.json"
"""What a directory of several runs says of them; they are in directories under it."""
WRITTEN = (
    OF_SEVERAL,
    "config.json",
    "choices.json",
    *TABLES,
    *TABLES_OF_INSTABILITY,
    "record.json",
    "report.html",
    "tickets",
    "plots",
    "state",
)


class RunDirectory:
    """`config.json`, the tables, `tickets/`, and `state/`, which holds what `--resume` needs until the run is done. Of
    several processes the first one writes and reads, and what it reads all of them get.

    `say` receives a line for each state file that is refused.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.path = path
        self._say = say
        self._states = path / "state"

    @by_first
    def holds_a_run(self) -> bool:
        """Whether `config.json` of a run is there."""
        return (self.path / "config.json").is_file()

    @by_first
    def has_states(self) -> bool:
        """Whether there is a state to go on from, which a finished run has not."""
        return bool(self._generations())

    @by_first
    def refuse_if_taken(self) -> None:
        """Raises InputError when something is in the way of a new run here, InUse when a run is. Writes nothing."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--out {self.path} is a file; give a directory")
        if self.holds_a_run():
            raise InUse(f"--out {self.path} holds another run; add --resume to go on with it, or name another")
        taken = [name for name in WRITTEN if (self.path / name).exists()]
        if taken:
            raise InputError(f"--out {self.path} holds {', '.join(taken)}, which a run would replace; name another")
        existing = next(parent for parent in (self.path, *self.path.absolute().parents) if parent.exists())
        if not os.access(existing, os.W_OK):
            raise InputError(f"--out {self.path} cannot be written: no permission for {existing}")

    @contextmanager
    def held(self, new: bool) -> Iterator[None]:
        """Holds the directory, made if need be, for this process alone; removes it again if it stays empty.

        `new`: a run is to begin here, and nothing may be in its way; asked again, for another may have run since.
        Of several processes that train together, the first one holds it for all. Raises InputError as `refuse_if_taken`
        does, and when it cannot be made; InUse when another process holds it.
        """
        with locked(self.path, self._say) if is_first() else nullcontext():
            if new:
                self.refuse_if_taken()
            self._remove_parts()
            yield

    @only_first
    def _remove_parts(self) -> None:
        for part in self.path.rglob(".*.part"):  # Of a process that was killed: nobody else writes here.
            part.unlink()

    @only_first
    def write_info(self, info: dict[str, Any]) -> None:
        """Writes `config.json`."""
        write_atomically(self.path / "config.json", (json.dumps(info, indent=2) + "\n").encode())

    @by_first
    def read_info(self) -> dict[str, Any]:
        """What `write_info` wrote. Raises InputError when it is not that any more."""
        path = self.path / "config.json"
        try:
            return dict(checked_json.mapping(json.loads(regular_files.read_text(path)), "the file"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path} is damaged ({error}); this run cannot go on, start another") from error

    @property
    def choices_path(self) -> Path:
        """Where what was measured and chosen is kept."""
        return self.path / "choices.json"

    @by_first
    def has_choices(self) -> bool:
        """Whether `write_choices` wrote any."""
        return self.choices_path.exists()

    @only_first
    def write_choices(self, choices: Choices) -> None:
        """Keeps what was chosen, which `read_choices` gives back."""
        write_atomically(self.choices_path, (json.dumps(choices.to_json(), indent=1) + "\n").encode())

    @only_first
    def write_record(self, record: Record) -> None:
        """Writes the tables, and all of the record, with its SHA-256, in `record.json`."""
        rows = (record.rounds, record.curves, record.layers, record.barriers, record.paths)
        for name, text in zip((*TABLES, *TABLES_OF_INSTABILITY), [table(each) for each in rows], strict=True):
            if text or name in TABLES:
                write_atomically(self.path / name, text.encode())
        content = json.dumps(record.to_json())
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        write_atomically(self.path / "record.json", f'{{"sha256": "{sha256}",\n"record": {content}}}\n'.encode())

    @by_first
    def read_record(self) -> Record:
        """What `write_record` wrote last, or an empty record. Raises InputError when it is not that any more."""
        path = self.path / "record.json"
        if not path.exists():
            return Record()
        try:
            read = json.loads(regular_files.read_text(path))
            record = read["record"]
            whole = hashlib.sha256(json.dumps(record).encode()).hexdigest() == read["sha256"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise InputError(f"{path} is damaged; the tables and tickets beside it are as they were")
        try:
            return Record.from_json(record)
        except ValueError as error:
            raise InputError(f"{path} holds no record of a run: {error}") from error

    def finished(self, rounds: int) -> Record | None:
        """The record of a run of so many rounds after the dense one, None where something is left to play of it.

        Where the process was killed that dropped its states, what it left of them is removed.
        """
        if self.has_states():
            return None
        record = self.read_record()
        if len(record.rounds) <= rounds:
            return None
        self.drop_states()
        return record

    def ticket_path(self, round: int) -> Path:
        """Where the ticket of `round` lies."""
        return self.path / "tickets" / f"round-{round:02}.safetensors"

    @only_first
    def name_damaged_tickets(self, rounds: int) -> None:
        """Says which tickets of so many rounds that are over are missing or damaged. No later round needs them."""
        for path in map(self.ticket_path, range(rounds)):
            try:
                sealed.read(path)
            except (OSError, InputError) as error:
                why = str(error) if isinstance(error, InputError) else f"{path} cannot be read: {error.strerror}"
                self._say(f"{why}; no other round needs it, and only the same run in another --out writes it again")

    @only_first
    def write_ticket(self, round: int, model: nn.Module, masks: dict[str, Tensor], **others: Any) -> None:
        """Writes the ticket of `round`, as `save_ticket` does."""
        save_ticket(self.ticket_path(round), model, masks, **others)

    @only_first
    def write_rewind(self, weights: dict[str, Tensor]) -> None:
        """Writes the rewind weights beside the states."""
        sealed.write(self._states / "rewind.safetensors", weights, {})

    @by_first
    def read_rewind(self) -> dict[str, Tensor] | None:
        """The rewind weights, from beside the states or else from the ticket of round 0, which is all of them.

        None when neither is there, whole. A damaged file is named and put aside.
        """
        saved: dict[str, Tensor] | None = self._read(self._states / "rewind.safetensors", lambda tensors, _: tensors)
        if saved is None and self.ticket_path(0).exists():
            try:
                return read_ticket(self.ticket_path(0)).weights
            except InputError as error:
                self._say(f"refused: {error}")
        return saved

    @only_first
    def write_step(self, step: int, weights: dict[str, Tensor]) -> None:
        """Writes the weights of the dense training at `step` beside the states."""
        sealed.write(self._step_path(step), weights, {})

    @by_first
    def read_step(self, step: int) -> dict[str, Tensor] | None:
        """What `write_step` wrote, None where it is not there, whole."""
        found: dict[str, Tensor] | None = self._read(self._step_path(step), lambda tensors, _: tensors)
        return found

    def _step_path(self, step: int) -> Path:
        return self._states / f"step-{step}.safetensors"

    @only_first
    def write_state(self, tensors: dict[str, Tensor], data: dict[str, Any]) -> None:
        """Adds a state and drops all but the newest two, so that a damaged one still has one before it."""
        found = self._generations()
        number = int(found[-1].stem) + 1 if found else 0
        sealed.write(self._states / f"{number:06}.safetensors", tensors, data)
        for old in found[: 1 - GENERATIONS]:
            old.unlink()

    @by_first
    def read_state(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest state that is whole, or None when there is none. A damaged one is named and put aside."""
        for path in reversed(self._generations()):
            state: tuple[dict[str, Tensor], dict[str, Any]] | None = self._read(path, lambda *state: state)
            if state is not None:
                return state
        self._say(f"{self.path} has no whole state to go on from: the run starts from its beginning")
        return None

    def _generations(self) -> list[Path]:
        return sorted(self._states.glob("[0-9]*.safetensors"))

    def _read(self, path: Path, take: Callable[[dict[str, Tensor], dict[str, Any]], Any]) -> Any:
        try:
            return take(*sealed.read(path))
        except FileNotFoundError:
            return None
        except sealed.DamagedFile as error:
            aside = path.with_suffix(".damaged")
            path.rename(aside)
            self._say(f"refused: {error}; it is kept as {aside.name}, and the run goes on from what is before it")
            return None

    @only_first
    def drop_states(self) -> None:
        """Removes what only an unfinished run needs: the states first, which need the rest."""
        if not self._states.exists():
            return
        if states := self._generations():
            for state in states:
                state.unlink()
            flush_directory(self._states)
        shutil.rmtree(self._states, ignore_errors=True)
        flush_directory(self.path)


@by_first
def read_choices(path: Path) -> Choices:
    """The choices that a run left at `path`. Raises InputError when they are missing or damaged."""
    try:
        return Choices.from_json(json.loads(regular_files.read_text(path)))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected the choices.json of a run") from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError among them.
        raise InputError(f"{path} holds no choices of a run, or damaged ones ({error})") from error


@by_first
def numbered(parent: Path, name: str) -> Path:
    """A new directory, the first of `parent/name-01`, `-02`, ... that was not there yet."""
    number = 1
    while True:
        path = parent / f"{name}-{number:02}"
        try:
            make_directory(parent)
            path.mkdir()
            flush_directory(parent)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise InputError(f"{path} cannot be made: {error.strerror}; name a directory with --out") from error
        else:
            return path
