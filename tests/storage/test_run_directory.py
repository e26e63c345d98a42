"""Who may write a run: one process, and never over another run."""

import os
import subprocess
import sys

import pytest

from lth_sparse.storage.lock import locked
from lth_sparse.storage.run_directory import RunDirectory
from lth_sparse.system.errors import InputError
from lth_sparse.system.stopping import Stopped


def test_what_another_run_left_meanwhile_is_refused_under_the_lock(tmp_path):
    store = RunDirectory(tmp_path / "run", print)
    store.refuse_if_taken()  # Here the images are loaded, which takes a while.
    other = RunDirectory(tmp_path / "run", print)
    with other.held(new=True):
        other.write_info({"of": "the other"})
    with pytest.raises(InputError, match="holds another run"), store.held(new=True):
        store.write_info({"of": "this one"})
    assert store.read_info() == {"of": "the other"}
    with store.held(new=False):  # Which --resume may.
        pass


def test_a_second_process_is_refused_and_leaves_everything(tmp_path):
    store = RunDirectory(tmp_path, print)
    program = (
        "from pathlib import Path; from lth_sparse.storage.run_directory import RunDirectory; import sys\n"
        "with RunDirectory(Path(sys.argv[1]), print).held(new=True): pass"
    )
    with store.held(new=True):
        (tmp_path / ".record.json.0a1b2c3d.part").touch()
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
        assert "another process is writing there; wait for it" in done.stderr
        assert {path.name for path in tmp_path.iterdir()} == {".lock", ".record.json.0a1b2c3d.part"}
        (tmp_path / "config.json").touch()
    assert {path.name for path in tmp_path.iterdir()} == {".record.json.0a1b2c3d.part", "config.json"}


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / ".000001.safetensors.0a1b2c3d.part").touch()
    (tmp_path / "mine.part").touch()
    (tmp_path / ".lock").touch()
    with RunDirectory(tmp_path, print).held(new=False):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["mine.part"]


def test_a_directory_that_stays_empty_is_removed(tmp_path):
    with RunDirectory(tmp_path / "run", print).held(new=True):
        assert (tmp_path / "run").is_dir()
    assert not list(tmp_path.iterdir())


def test_who_is_stopped_learns_the_outermost_directory(tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").touch()
    inner = RunDirectory(tmp_path / "sweep" / "one" / "seed-0", print)
    with pytest.raises(Stopped) as stopped, locked(tmp_path / "sweep", print), inner.held(new=True):
        raise Stopped(15)
    assert stopped.value.out == tmp_path / "sweep"
    assert not (tmp_path / "sweep" / "one" / "seed-0").exists()


def test_of_a_finished_run_what_needs_the_rest_is_removed_first(tmp_path, monkeypatch):
    """A kill in between leaves a run that can go on, or one that is known to be finished."""
    store, removed = RunDirectory(tmp_path, print), []
    store.write_rewind({})
    store.write_state({}, {})
    store.write_state({}, {})
    unlink = os.unlink
    monkeypatch.setattr(
        "os.unlink", lambda path, **named: (removed.append(os.path.basename(path)), unlink(path, **named))
    )
    store.drop_states()
    assert removed == ["000000.safetensors", "000001.safetensors", "rewind.safetensors"]


def test_where_nothing_can_be_locked_it_is_said(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr("fcntl.flock", refuse)
    said = []
    with RunDirectory(tmp_path, said.append).held(new=True):
        pass
    assert said == [f"{tmp_path} cannot be locked ({os.strerror(95)}): see that no other process writes there"]
