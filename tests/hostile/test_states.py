"""States, records, choices and descriptions of runs that somebody has written: one sentence, or a run that goes on."""

import json
import shutil
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_sparse import run
from lth_sparse.storage import sealed
from lth_sparse.storage.record import Record
from lth_sparse.storage.run_directory import RunDirectory, read_choices
from lth_sparse.system.errors import InputError
from tests.hostile.effort import examples
from tests.hostile.files import changed_bytes, changed_json, changed_tensors, reseal

SHORT = (
    "--dataset",
    "digits",
    "--model",
    "lenet-300-100",
    "--iterations",
    "3",
    "--rounds",
    "1",
    "--backend",
    "cpp",
    "--no-fuse",
)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that stopped in its last round, with its states."""
    out = tmp_path_factory.mktemp("states") / "run"
    with pytest.MonkeyPatch.context() as patch:
        write, calls = RunDirectory.write_state, []

        def stop(self, *arguments):
            write(self, *arguments)
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt

        patch.setattr(RunDirectory, "write_state", stop)
        assert run.main([*SHORT, "--out", str(out)]) == 130
    return out


@pytest.mark.filterwarnings("ignore")
def test_states_that_were_changed_and_sealed_again(interrupted, tmp_path, capfd):
    newest = sorted((interrupted / "state").glob("[0-9]*"))[-1]
    tensors, data = sealed.read(newest)
    statuses, out = [], tmp_path / "run"

    @examples(30)
    @given(
        st.one_of(
            changed_tensors(tensors).map(lambda changed: (changed, data)),
            changed_json(data).map(lambda changed: (tensors, changed)),
        )
    )
    def attack(content):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(interrupted, out)
        reseal(out / "state" / newest.name, *content)
        capfd.readouterr()
        statuses.append(run.main(["--out", str(out), "--resume"]))
        error = capfd.readouterr().err
        assert statuses[-1] in (0, 2), error
        assert "unexpected" not in error

    attack()
    assert 0.05 < np.mean(np.array(statuses) == 0) < 0.95


@pytest.mark.filterwarnings("ignore")
def test_other_files_of_a_run(interrupted, tmp_path, capfd):
    out, statuses = tmp_path / "run", []

    @st.composite
    def changed(draw):
        name = draw(st.sampled_from(["config.json", "record.json"]))
        content = (interrupted / name).read_bytes()
        if draw(st.integers(0, 3)) == 0:
            return name, draw(changed_bytes(content))
        return name, json.dumps(draw(changed_json(json.loads(content)))).encode()

    @examples(30)
    @given(changed())
    def attack(given):
        name, content = given
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(interrupted, out)
        (out / name).write_bytes(content)
        capfd.readouterr()
        statuses.append(run.main(["--out", str(out), "--resume"]))
        error = capfd.readouterr().err
        assert statuses[-1] in (0, 2), error
        assert "unexpected" not in error

    attack()
    assert 2 in statuses


def test_records_and_choices(interrupted, tmp_path):
    record, choices = (
        json.loads((interrupted / "record.json").read_text())["record"],
        {"layers": [], "steps": [], "formats": []},
    )
    found = []

    @examples(600)
    @given(changed_json(record))
    def records(changed):
        try:
            found.append(Record.from_json(changed))
        except ValueError:
            found.append(None)

    records()
    assert None in found
    assert any(found)

    @examples(300)
    @given(st.binary(max_size=40) | changed_json(choices).map(lambda changed: json.dumps(changed).encode()))
    def of_a_file(content):
        (tmp_path / "choices.json").write_bytes(content)
        with suppress(InputError):
            read_choices(tmp_path / "choices.json")

    of_a_file()


@pytest.mark.parametrize("name", ["config.json", "record.json", "choices.json"])
@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b"null", b"[]", b"\xff", b""])
def test_what_json_makes_of_nonsense(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    store = RunDirectory(tmp_path, print)
    reader = {
        "config.json": store.read_info,
        "record.json": store.read_record,
        "choices.json": lambda: read_choices(store.choices_path),
    }
    with pytest.raises(InputError, match=name):
        reader[name]()
