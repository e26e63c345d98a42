import json

import pytest

from lth_sparse import models
from lth_sparse.settings import config
from lth_sparse.settings.config import Config
from lth_sparse.settings.presets import PRESETS
from lth_sparse.system.errors import InputError


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_whole_configuration_of_known_names(preset: str) -> None:
    built = config.build({"preset": preset})
    assert built.model in models.names()
    assert (built.training.epochs is None) != (built.training.iterations is None)


def test_the_presets_named_in_the_readme_exist() -> None:
    assert set(PRESETS) == {
        "quick", "seed", "paper/lenet", "paper/conv2", "paper/conv4", "paper/conv6",
        "openlth/resnet20", "openlth/vgg16",
    }  # fmt: skip


def test_every_setting_has_a_help_text_and_can_be_overridden() -> None:
    values: dict[type, object] = {str: "dense", int: 3, float: 0.3, bool: False, tuple: (0.5,)}
    for setting, kind, _ in config.settings():
        assert setting.metadata["help"]
        if setting.metadata["choices"] or setting.name == "preset":
            continue
        flat: dict[str, object] = {}
        for name, value in config.build({setting.name: values[kind]}).to_json().items():
            flat |= value if isinstance(value, dict) else {name: value}
        assert flat[setting.name] == values[kind]


def test_what_is_given_wins_over_the_preset_and_drops_its_other_way_to_say_it() -> None:
    built = config.build({"preset": "seed", "sparsity": 0.3, "iterations": 7})
    assert (built.pruning.sparsity, built.training.iterations, built.training.epochs) == (0.3, 7, None)
    built = config.build({"preset": "openlth/resnet20", "rewind_epoch": 2})
    assert (built.pruning.rewind_epoch, built.pruning.rewind_iteration) == (2, 0)
    built = config.build({"preset": "paper/conv2", "prune_rate": 0.5})
    assert (built.pruning.prune_rate, built.pruning.conv_rate, built.pruning.fc_rate) == (0.5, None, None)


def test_another_optimizer_takes_nesterovs_momentum_back() -> None:
    """So that a ticket that was found with it is trained by `transfer --optimizer adam`."""
    found_with = {"optimizer": "sgd", "nesterov": True}
    assert config.build({}, size=found_with).training.nesterov
    assert config.build({"learning_rate": 0.2}, size=found_with).training.nesterov
    built = config.build({"optimizer": "adamw"}, size=found_with)
    assert (built.training.optimizer, built.training.nesterov) == ("adamw", False)


def test_a_schedule_of_the_learning_rate_takes_the_other_one_back() -> None:
    built = config.build({"preset": "openlth/resnet20", "learning_rate_schedule": "cosine"})
    assert (built.training.learning_rate_schedule, built.training.milestones) == ("cosine", ())
    again = config.build({"milestones": (0.3,)}, file=config.flat(built.to_json()))
    assert (again.training.learning_rate_schedule, again.training.milestones) == ("step", (0.3,))


def test_settings_survive_json() -> None:
    built = config.build({"preset": "openlth/resnet20", "seed": 7})
    assert Config.from_json(json.loads(json.dumps(built.to_json()))) == built


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "quik"}, 'did you mean "quick"'),
        ({"optimizer": "adm"}, 'did you mean "adam"'),
        ({"optimizer": "adamw", "nesterov": True}, "--nesterov: it is sgd's momentum, given --optimizer adamw"),
        ({"preset": "seed", "nesterov": True, "momentum": 0.0}, "--nesterov: .* --momentum 0.0; take it back"),
        ({"rounds": -1}, "--rounds -1: expected a number of at least 0"),
        ({"epochs": 0}, "--epochs 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"sparsity": 1.0}, r"--sparsity 1.0: expected a fraction in \[0, 1\)"),
        ({"sparsity": -0.1}, "--sparsity -0.1"),
        ({"sparsity": float("nan")}, "--sparsity nan: expected a finite number"),
        ({"prune_rate": 1.5}, "--prune-rate 1.5"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0"),
        ({"milestones": (0.5, 1.5)}, "--milestones"),
        ({"learning_rate_schedule": "cosin"}, 'did you mean "cosine"'),
        ({"learning_rate_schedule": "cosine", "milestones": (0.5,)}, "--milestones: --learning-rate-schedule cosine"),
        ({"learning_rate_schedule": "cosine", "rewind": "none"}, "cosine ends at 0, at which --rewind none"),
        (
            {"learning_rate_schedule": "cosine", "controls": ("rewind-none",)},
            "cosine ends at 0, at which --rewind none",
        ),
        ({"rewind_epoch": -1}, "--rewind-epoch -1: expected a number of at least 0"),
        ({"rewind_epoch": 1, "rewind_iteration": 5}, "--rewind-iteration or --rewind-epoch, not both"),
        ({"epochs": 1, "iterations": 1}, "--epochs or --iterations, not both"),
        ({"prune_rate": 0.2, "sparsity": 0.9}, "--prune-rate or --sparsity, not both"),
        ({"learning_rate": 1e39}, r"--learning-rate 1e\+39: expected a finite number, at most 3.4e\+38"),
        ({"image_size": 100_000}, "--image-size 100000: expected at most 4096"),
        ({"rounds": 10**9}, "--rounds 1000000000"),
        ({"epochs": 10**12}, "--epochs 1000000000000: expected at most"),
        ({"rounds": 0, "sparsity": 0.9}, "--rounds 0 prunes nothing"),
        ({"schedule": "seed"}, "--schedule seed needs"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config.build(given)
