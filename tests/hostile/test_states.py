"""States, records, choices and descriptions of runs that somebody has written: one sentence, or a run that goes on."""

import copy
import json
import shutil
import sys
from contextlib import suppress
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lth_sparse import run
from lth_sparse.lottery import playing
from lth_sparse.lottery.rounds import Callbacks, Rounds
from lth_sparse.lottery.task_trainer import TaskTrainer
from lth_sparse.storage import sealed
from lth_sparse.storage.record import Record
from lth_sparse.storage.run_directory import RunDirectory, read_choices
from lth_sparse.system.errors import OURS, InputError
from tests.hostile import corpus
from tests.hostile.effort import examples, report
from tests.hostile.files import changed_bytes, changed_json, changed_tensors, reseal
from tests.memory import limited_memory, not_for_memory, peak_memory

MOST = 512
"""MiB that reading a state of a few KB may map."""


MODEL = corpus.RUN[2:4]


class Begun(BaseException):
    """A training goes on from a state."""


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that stopped in its last round, with its states."""
    out = tmp_path_factory.mktemp("states") / "run"
    corpus.interrupted(out)
    return out


@pytest.fixture(scope="module")
def begun(interrupted, tmp_path_factory):
    """The trainer, the store and the memory format of that run, resumed."""
    out, made = tmp_path_factory.mktemp("resumed") / "run", []
    shutil.copytree(interrupted, out)

    class Recorded(Rounds):
        def __init__(self, trainer, store, callbacks, memory_format):
            made.append((trainer, store, memory_format, copy.deepcopy(trainer.model.state_dict())))
            raise Begun

    with mock.patch.object(playing, "Rounds", Recorded), pytest.raises(Begun):
        run.main([*MODEL, "--out", str(out), "--resume"])
    return made[0]


@pytest.fixture
def resume(interrupted, begun, monkeypatch):
    """Whether a training goes on from a state of that run, of which `resume(content)` is the file; `InputError` and
    its like are the only things that it may raise."""
    trainer, store, memory_format, beginning = begun
    states, (newest,) = store.path / "state", [path.name for path in (interrupted / "state").glob("000001*")]
    whole = (interrupted / "state" / "rewind.safetensors").read_bytes()

    def stop(self, *_):
        raise Begun

    monkeypatch.setattr(TaskTrainer, "run", stop)
    monkeypatch.setattr(TaskTrainer, "write", lambda self: None)

    def resume(content, rewind=whole):
        shutil.rmtree(states)
        states.mkdir()
        (states / "rewind.safetensors").write_bytes(rewind)
        (states / newest).write_bytes(content)
        trainer.model.load_state_dict(beginning)
        rounds = Rounds(trainer, store, Callbacks(), memory_format)
        try:
            rounds.play(resume=True)
        except Begun:
            # Else it begins anew, for what is not whole is put aside.
            return (states / newest).exists()
        except OURS as error:
            not_for_memory(error)
            return False
        raise AssertionError("it played on")

    resume((interrupted / "state" / newest).read_bytes())  # What the first one imports is not of its content.
    return resume


@pytest.mark.filterwarnings("ignore")
def test_the_corpus(resume):
    taken = {path.name: resume(path.read_bytes()) for path in corpus.files("states")}
    assert {name for name in taken if taken[name]} == {"round-1", "weights-not-finite"}, (
        "python -m tests.hostile.corpus"
    )


@pytest.mark.parametrize("weights", [{}, {"1.weight": torch.zeros(3, 64)}, {"x": torch.zeros(1)}])
def test_rewind_weights_of_another_network(resume, weights, tmp_path):
    tensors, data = sealed.read(corpus.FILES / "states" / "round-1")
    reseal(tmp_path / "state", tensors, {**data, "saved_sha256": sealed.digest(weights)})
    reseal(tmp_path / "rewind", weights, {})
    assert not resume((tmp_path / "state").read_bytes(), (tmp_path / "rewind").read_bytes())


def test_weights_of_a_step_that_are_of_another_network(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(RunDirectory, "read_step", lambda self, step: {})
    assert run.main([*corpus.RUN, "--instability", "0", "--out", str(tmp_path / "run")]) == 2
    assert "step-0/ has not the names of the model" in capfd.readouterr().err


@pytest.mark.parametrize(("section", "name"), [((), "model"), (("pruning",), "criterion"), (("dataset",), "name")])
def test_a_file_does_not_decide_which_modules_are_imported(interrupted, section, name, tmp_path, monkeypatch, capfd):
    out = tmp_path / "run"
    shutil.copytree(interrupted, out)
    info = json.loads((out / "config.json").read_text())
    place = info if section == ("dataset",) else info["config"]
    for each in section:
        place = place[each]
    place[name] = "stranger:function"
    (out / "config.json").write_text(json.dumps(info))
    (tmp_path / "stranger.py").write_text("def function():\n    raise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    assert run.main([*(() if name == "model" else MODEL), "--out", str(out), "--resume"]) == 2
    assert "a file is not to decide which modules are imported" in capfd.readouterr().err
    assert "stranger" not in sys.modules


@pytest.mark.filterwarnings("ignore")
def test_states_of_which_bytes_were_changed(resume, capfd):
    contents, taken = [path.read_bytes() for path in corpus.files("states")], []

    @examples(100)
    @given(st.sampled_from(contents).flatmap(changed_bytes))
    def attack(content):
        taken.append(resume(content))

    with peak_memory() as memory, limited_memory(MOST):
        attack()
    report(capfd, f"{len(taken)} states of which bytes were changed: {sum(taken)} gone on with, the others refused")
    assert not all(taken)
    assert memory.mebibytes < 200


@pytest.mark.filterwarnings("ignore")
def test_states_that_were_changed_and_sealed_again_are_read_or_refused(resume, tmp_path, capfd):
    tensors, data = sealed.read(corpus.FILES / "states" / "round-1")
    taken = []

    @st.composite
    def changed(draw):
        if draw(st.booleans()):
            return draw(changed_tensors(tensors)), data
        return tensors, draw(changed_json(data))

    @examples(300)
    @given(changed())
    def attack(content):
        reseal(tmp_path / "state", *content)
        taken.append(resume((tmp_path / "state").read_bytes()))

    with peak_memory() as memory, limited_memory(MOST):
        attack()
    report(
        capfd, f"{len(taken)} states that were changed and sealed again: {sum(taken)} gone on with, the others refused"
    )
    assert 0.05 < np.mean(taken) < 0.95
    assert memory.mebibytes < 200


@pytest.mark.filterwarnings("ignore")
def test_states_that_were_changed_and_sealed_again(interrupted, tmp_path, capfd):
    newest = sorted((interrupted / "state").glob("[0-9]*"))[-1]
    tensors, data = sealed.read(newest)
    statuses, out = [], tmp_path / "run"

    @examples(30, most=300)
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
        statuses.append(run.main([*MODEL, "--out", str(out), "--resume"]))
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

    @examples(30, most=300)
    @given(changed())
    def attack(given):
        name, content = given
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(interrupted, out)
        (out / name).write_bytes(content)
        capfd.readouterr()
        statuses.append(run.main([*MODEL, "--out", str(out), "--resume"]))
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

    @examples(600, most=20_000)
    @given(changed_json(record))
    def records(changed):
        try:
            found.append(Record.from_json(changed))
        except ValueError:
            found.append(None)

    records()
    assert None in found
    assert any(found)

    @examples(300, most=20_000)
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
