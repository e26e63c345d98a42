"""Settings from a file: what takes precedence, and what is no setting, by its line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lth_sparse.settings import config, file
from lth_sparse.settings.config import Config
from lth_sparse.settings.presets import PRESETS
from lth_sparse.system.errors import InputError

Written = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(content: object, name: str = "") -> Path:
        path = tmp_path / (name or ("settings.yaml" if isinstance(content, str) else "settings.json"))
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2))
        return path

    return write


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_run_has_recorded_gives_its_settings_again(preset: str, written: Written) -> None:
    settings = config.build({"preset": preset, "seed": 3, **({"sparsity": 0.9} if preset == "quick" else {})})
    info = {"command": "...", "config": settings.to_json(), "environment": {"torch": "2"}}
    given = file.read(written(info))
    assert config.build({}, file=given) == settings
    assert config.build({"seed": 5}, file=given) == config.build({}, file=given | {"seed": 5})


def test_the_data_set_is_the_one_that_auto_came_to(written: Written) -> None:
    info = {"config": config.build({}).to_json(), "dataset": {"name": "digits"}}
    assert file.read(written(info))["dataset"] == "digits"


def test_a_run_from_before_a_setting_is_run_as_it_was(written: Written) -> None:
    began = config.build({"preset": "seed", "fuse": False})
    settings = began.to_json()
    assert (began.pruning.sparsity, began.pruning.prune_rate) == (0.5, 0.2)
    for name in ("fuse", "checkpoint", "winograd"):
        del settings[name]
    assert config.build({}, file=file.read(written({"config": settings}))) == began


YAML = """
preset: paper/conv4   # beneath
rounds: 3
learning_rate: 1e-4
warmup: 1e1
winograd: null
fuse: no
training:
  milestones: [0.5, 0.75]
pruning: {control: random, "sparsity": 0.5}
"""


def test_yaml_gives_what_json_gives(written: Written) -> None:
    plain = {
        "preset": "paper/conv4", "rounds": 3, "learning_rate": 1e-4, "warmup": 10.0, "winograd": None, "fuse": False,
        "milestones": [0.5, 0.75], "control": "random", "sparsity": 0.5,
    }  # fmt: skip
    built = [config.build({}, file=file.read(written(content))) for content in (YAML.replace("1e1", "10.0"), plain)]
    assert built[0] == built[1]
    assert (built[0].model, built[0].training.warmup, built[0].training.milestones) == ("conv4", 10, (0.5, 0.75))
    assert type(built[0].training.warmup) is int


def test_the_command_line_wins_over_the_file_and_the_file_over_the_preset() -> None:
    def built(given: dict[str, object], given_file: dict[str, object]) -> Config:
        return config.build(given, file=given_file)

    assert built({}, {"rounds": 3}).pruning.rounds == 3
    assert built({"rounds": 4}, {"rounds": 3}).pruning.rounds == 4
    assert built({}, {"preset": "paper/conv4"}).model == "conv4"
    both = built({"preset": "paper/conv6"}, {"preset": "paper/conv4", "seed": 3})
    assert (both.preset, both.model, both.seed) == ("paper/conv6", "conv6", 3)
    # What says the same in another way takes it back.
    one = built({"epochs": 2}, {"iterations": 50})
    assert (one.training.epochs, one.training.iterations) == (2, None)
    other = built({"sparsity": 0.9}, {"prune_rate": 0.4})
    assert (other.pruning.sparsity, other.pruning.prune_rate) == (0.9, 0.2)
    whole = config.flat(config.build({"preset": "openlth/resnet20", "sparsity": 0.9}).to_json())
    again = built({"prune_rate": 0.1}, whole)
    assert (again.pruning.prune_rate, again.pruning.sparsity) == (0.1, None)
    assert built({"iterations": 9}, whole).training.epochs is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("rounds: 3\nepoch: 4\n", "line 2: there is no setting 'epoch', did you mean \"epochs\"?"),
        ("rounds: 3\nbatch-size: 4\n", "line 2: there is no setting 'batch-size', did you mean \"batch_size\"?"),
        ({"rounds": 3, "training": {"optimiser": "sgd"}}, "line 4: there is no setting 'optimiser', did you mean"),
        ("# rounds: 1\n\nrounds: three", 'line 3: rounds is "three", expected a whole number'),
        ("rounds: 2.5", "line 1: rounds is 2.5, expected a whole number"),
        ("rounds: true", "line 1: rounds is true, expected a whole number"),
        ("rounds:", "line 1: rounds is null, expected a whole number"),
        ("epochs: many", 'line 1: epochs is "many", expected a whole number or null'),
        ("model: 3", "line 1: model is 3, expected text"),
        ("fuse: 1", "line 1: fuse is 1, expected true or false"),
        ("learning_rate: fast", 'learning_rate is "fast", expected a number'),
        ("milestones: 0.5", "milestones is 0.5, expected a list of fractions"),
        ("milestones: [0.5, x]", 'milestones is [0.5, "x"], expected a list of fractions'),
        ("training:\n  epochs: 3\nepochs: 4", "epochs is given twice"),
        ("training: 3", "line 1: there is no setting 'training'"),
        ("[1, 2]", "it holds [1, 2], expected names of settings with values"),
        ("a: [1,\nb: }", "line 2: "),
        ("3: 4", "the name 3 is no text"),
        ({"config": [1]}, '"config" is [1], expected names with values'),
    ],
)
def test_what_is_no_setting_is_told_by_its_line(content: object, message: str, written: Written) -> None:
    with pytest.raises(InputError, match=r"^--config \S+settings\.\w+.*" + re.escape(message)) as refused:
        file.read(written(content))
    assert "\n" not in str(refused.value)


def test_what_cannot_be_read_is_told(written: Written, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 1: Expecting ',' delimiter; expected JSON"):
        file.read(written('{"rounds": 3 "seed": 1}', "a.json"))
    for name, reason in (("missing.json", "No such file"), (".", "Is a directory")):
        with pytest.raises(InputError, match=f"{reason}.*; give a run's config.json"):
            file.read(tmp_path / name)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="it is no text"):
        file.read(tmp_path / "binary")


def test_values_are_checked_and_two_that_exclude_each_other_refused() -> None:
    with pytest.raises(InputError, match="--rounds -1"):
        config.build({}, file={"rounds": -1})
    with pytest.raises(InputError, match="--epochs or --iterations, not both"):
        config.build({}, file={"epochs": 1, "iterations": 2})
    whole = config.flat(config.build({}).to_json())
    with pytest.raises(InputError, match="--preset seed: --config gives every setting"):
        config.build({"preset": "seed"}, file=whole)
