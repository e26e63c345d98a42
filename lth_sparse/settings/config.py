"""The settings of a run: frozen dataclasses, from which the command line is made."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any, Union, get_args, get_origin, get_type_hints

from lth_sparse.backends import winograd
from lth_sparse.settings import checks
from lth_sparse.settings.presets import PRESETS
from lth_sparse.system.command_line import chosen, fractions, steps
from lth_sparse.system.errors import InputError
from lth_sparse.system.home import from_home
from lth_sparse.system.suggest import nearest


def option(
    default: Any,
    help: str,
    choices: tuple[str, ...] | None = None,
    *,
    parse: Callable[[str], Any] | None = None,
    of_old: str = "",
) -> Any:
    """A field with its default, the sentence that explains it, the values that it may take, how the command line is
    read where the type of the value does not say it, and what its option was called in earlier versions."""
    return field(default=default, metadata={"help": help, "choices": choices, "parse": parse, "of_old": of_old})


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are presented to the network."""

    dataset: str = option(
        "auto",
        "data set; auto: CIFAR-10 if it is on disk or can be fetched, else digits; or module:function of yours, which "
        "gives (train, test), each (images, labels) or a torch dataset",
    )
    data_dir: str = option("~/.cache/lth_sparse", "folder that holds the data set, or receives it", parse=from_home)
    image_size: int | None = option(None, "resize images to a square of this many pixels (default: as they are)")
    normalization: str = option(
        "dataset",
        "mean and deviation: of the training images, 0.5 for both, or pixels left in [0, 1]",
        ("dataset", "half", "none"),
    )
    augmentation: str = option(
        "none",
        "random crop from 4 pixels (an eighth of a smaller image) of padding, and mirror images",
        ("none", "crop", "crop-flip"),
    )


@dataclass(frozen=True)
class TrainingConfig:
    """One training run, the same for the dense network and for every ticket."""

    optimizer: str = option("sgd", "optimizer", ("sgd", "adam", "adamw"))
    learning_rate: float = option(0.1, "learning rate after warm-up")
    momentum: float = option(0.9, "momentum of sgd")
    nesterov: bool = option(False, "sgd takes Nesterov's momentum")
    weight_decay: float = option(
        0.0, "an L2 penalty for sgd and adam, decoupled for adamw, as torch.optim applies it to every parameter"
    )
    batch_size: int = option(128, "images in a step, of all processes together")
    epochs: int | None = option(None, "length of each training run in epochs")
    iterations: int | None = option(None, "length of each training run in steps, instead of --epochs")
    learning_rate_schedule: str = option(
        "step",
        "what the learning rate does after warm-up: falls tenfold at each of --milestones, without any stays as it is; "
        "or falls to 0 over the rest of the run, as half a cosine",
        ("step", "cosine"),
    )
    milestones: tuple[float, ...] = option(
        (), "fractions of the run, such as 0.5,0.75, at which the learning rate falls tenfold", parse=fractions
    )
    warmup: int = option(0, "steps over which the learning rate rises linearly to its value")
    evaluate_every: int = option(100, "steps between evaluations on the validation set")
    batch_norm: str = option(
        "synchronised",
        "under torchrun, BatchNorm's statistics in training: of the whole batch, so that the number of processes does "
        "not matter, or of each process's part of it",
        ("synchronised", "local"),
    )


@dataclass(frozen=True)
class PruningConfig:
    """How weights are chosen for pruning, and what the survivors go back to."""

    rounds: int = option(6, "rounds of pruning, after round 0, which trains the dense network")
    prune_rate: float = option(0.2, "fraction of the live weights that a round prunes")
    conv_rate: float | None = option(None, "the same for convolutions alone (default: --prune-rate)")
    fc_rate: float | None = option(None, "the same for fully connected layers alone (default: --prune-rate)")
    output_rate: float | None = option(None, "the same for the output layer alone (default: --prune-rate)")
    sparsity: float | None = option(
        None,
        "sparsity of all prunable weights after the last round; scales the rates, keeps their proportions",
    )
    scope: str = option(
        "layerwise",
        "rank magnitudes within each layer, or among all layers of the same rate",
        ("layerwise", "global"),
    )
    schedule: str = option(
        "geometric",
        "geometric: the same rate each round; seed: sparsity (100 s)^(r/R) / 100 after round r; "
        "one-shot: every round prunes the trained dense network directly; "
        "gradual: one round, whose training goes from dense to --sparsity, pruning every --update-every steps",
        ("geometric", "seed", "one-shot", "gradual"),
    )
    criterion: str = option(
        "magnitude",
        "what decides which weights stay: their magnitude; random, or erk, whose layers have the densities that their "
        "sizes ask for; snip and grasp, by the gradients of a thousand training images; synflow, without data; or "
        "module:function of yours, which takes the model and gives {layer: scores}",
    )
    prune_at: str = option(
        "end",
        "when weights are chosen: at the end of a training; or at the start, on the rewind weights, before any, each "
        "round anew from all of them",
        ("end", "start"),
    )
    dynamic: str = option(
        "none",
        "let the topology change while a ticket is trained: the smallest live weights of each layer are dropped and as "
        "many grown, at random (set) or where the gradient is largest (rigl)",
        ("none", "set", "rigl"),
    )
    update_every: int = option(
        100, "steps from one change of the topology to the next, with --dynamic or --schedule gradual"
    )
    rewind_iteration: int = option(0, "step of the dense training whose weights are the rewind weights; 0: init")
    rewind_epoch: int | None = option(None, "the same as a number of epochs, instead of --rewind-iteration")
    rewind: str = option(
        "weights",
        "what a round goes back to before it trains again: the rewind weights and their learning rate; the learning "
        "rate alone, the weights staying as they were trained; or nothing, which is fine-tuning at the last rate; "
        "aliased emulates a mistake, a rewind that copies the weights onto themselves, and an optimizer that lives on",
        ("weights", "learning-rate", "none", "aliased"),
    )
    controls: tuple[str, ...] = option(
        (),
        "what is trained beside each ticket, such as random,reinit: a random mask with as many weights in each layer; "
        "initial weights drawn anew; the mask shuffled within each layer; the smallest weights of the trained dense "
        "network; the signs of the weights alone; fine-tuning without a rewind; with --dynamic, the mask that the "
        "ticket began with, which stays (static); or none",
        ("random", "reinit", "shuffle", "invert", "sign", "rewind-none", "static"),
        parse=chosen,
        of_old="--control",
    )
    instability: tuple[int, ...] = option(
        (),
        "steps of the dense training, such as 0,100,500: from each of them, and from the start of each ticket, two "
        "copies are trained in different orders of the images, and the error is evaluated on the line between their "
        "ends (Frankle et al. 2020); or none",
        parse=steps,
    )


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes."""

    preset: str = option("quick", "set of defaults: " + ", ".join(PRESETS))
    model: str = option(
        "small",
        "network; or torchvision:NAME, timm:NAME, or module:function of yours, which gives an nn.Module and may take "
        "input_shape and num_classes",
    )
    checkpoint: str | None = option(
        None,
        "weights to start from instead of new ones: a state dict, by torch.save or as safetensors",
        parse=from_home,
    )
    backend: str = option(
        "auto", "what computes the layers; auto: for each layer and operation the fastest that works here, measured"
    )
    winograd: str | None = option(
        None,
        "on the CPU, the largest tile of Winograd's algorithm, whose float32 is up to "
        f"{winograd.ERROR['4x4']:.0e} off, for 3 x 3 convolutions (default: what {winograd.VARIABLE} says, or 4x4)",
        winograd.SETTINGS,
    )
    seed: int = option(0, "seeds the weights, the split, the order of the images and the augmentation")
    device: str = option("auto", "device: auto (a GPU when there is one), cpu, cuda, cuda:1, ...")
    fuse: bool = option(
        True,
        "on a CPU, let BatchNorm, ReLU and max-pool run as one operator between sparse layers (--no-fuse: one by one)",
    )
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    pruning: PruningConfig = field(default_factory=PruningConfig)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON-ready data; `from_json` gives them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Config:
        """The settings that `to_json` wrote, of this version or an older one."""
        return _assemble(OF_OLDER_RUNS | flat(renamed(data)))


OF_OLDER_RUNS: dict[str, Any] = {
    "fuse": False,
    "winograd": None,
    "checkpoint": None,
    "rewind": "weights",
    "criterion": "magnitude",
    "prune_at": "end",
    "instability": (),
    "nesterov": False,
    "learning_rate_schedule": "step",
    "rewind_epoch": None,
    "dynamic": "none",
    "update_every": 100,
    "batch_norm": "synchronised",
}
"""Settings that older runs have not recorded, for there were none, as they were played."""


def renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that an older version has written, sections and all, by their names of today."""
    found = dict(settings)
    if isinstance(pruning := settings.get("pruning"), Mapping):
        found["pruning"] = renamed(pruning)
    if "control" in found:
        found["controls"] = [name for name in [found.pop("control")] if name != "none"]
    return found


SECTIONS: dict[str, type] = {"data": DataConfig, "training": TrainingConfig, "pruning": PruningConfig}


Setting = tuple[Field[Any], type, bool]
"""A setting's field, the type of its value, and whether None is allowed."""


def settings() -> Iterator[Setting]:
    """Every setting of a run."""
    for section in (Config, *SECTIONS.values()):
        yield from _settings_of(section)


def by_subject() -> dict[str, list[Setting]]:
    """The same, by the words for what they are about."""
    return {
        "what is run, and on what": list(_settings_of(Config)),
        "images": list(_settings_of(DataConfig)),
        "each training": list(_settings_of(TrainingConfig)),
        "pruning and rewinding": list(_settings_of(PruningConfig)),
    }


def _settings_of(section: type) -> Iterator[Setting]:
    hints = get_type_hints(section)
    for setting in fields(section):
        if setting.name in SECTIONS:
            continue
        hint = hints[setting.name]
        optional = get_origin(hint) in (Union, types.UnionType)
        if optional:
            hint = get_args(hint)[0]
        yield setting, get_origin(hint) or hint, optional


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `Config.to_json` gave, its sections opened: every setting by its name."""
    opened: dict[str, Any] = {}
    for name, value in settings.items():
        opened |= value if isinstance(value, Mapping) else {name: value}
    return opened


def _assemble(named: Mapping[str, Any]) -> Config:
    values: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in named.items()}
    sections: dict[str, Any] = {
        name: section(**{f.name: values.pop(f.name) for f in fields(section) if f.name in values})
        for name, section in SECTIONS.items()
    }
    return Config(**values, **sections)


# Two ways to say the same thing: choosing one drops what the preset says by the other.
EXCLUSIVE = (("epochs", "iterations"), ("prune_rate", "sparsity"), ("rewind_iteration", "rewind_epoch"))


NOTHING: Mapping[str, Any] = types.MappingProxyType({})


def build(given: Mapping[str, Any], size: Mapping[str, Any] = NOTHING, file: Mapping[str, Any] = NOTHING) -> Config:
    """The settings of a preset ("quick" by default), over it `size`, over these `file`, over these `given`.

    Each maps names of settings, as `settings()` lists them, to values; `file` and `given` may name the preset. One of
    them that sets one of two settings that exclude each other takes back what is under it says of the other.

    Raises InputError for an unknown preset, a value out of range, or two settings that exclude each other.
    """
    preset = given.get("preset", file.get("preset", size.get("preset", "quick")))
    if preset not in PRESETS:
        raise InputError(
            f"--preset {preset}: there is no such preset{nearest(preset, PRESETS)}; there are: {', '.join(PRESETS)}"
        )
    whole = {setting.name for setting, *_ in settings()}
    if "preset" in given and file.keys() >= whole - {"preset"}:
        raise InputError(
            f"--preset {preset}: --config gives every setting, over those of any preset; leave one of the two out"
        )
    _refuse_both(given)
    if not file.keys() >= whole - {"preset"}:  # A whole file has the rate that its sparsity scales, too.
        _refuse_both(file)
    values: dict[str, Any] = dict(PRESETS[preset])
    for layer in (size, file, given):
        values = _over(values, layer)
    config = _assemble(values | {"preset": preset})
    check(config)
    return config


def _refuse_both(given: Mapping[str, Any]) -> None:
    for one, other in EXCLUSIVE:
        if given.get(one) is not None and given.get(other) is not None:
            raise InputError(f"give {checks.flag(one)} or {checks.flag(other)}, not both")


def _over(values: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    taken_back = _taken_back(layer)
    return {name: value for name, value in values.items() if name not in taken_back} | dict(layer)


def _taken_back(layer: Mapping[str, Any]) -> set[str]:
    """The settings of which `layer` leaves nothing that is said under it."""
    names = set(checks.KINDS_OF_RATE) if "prune_rate" in layer else set()
    for one, other in EXCLUSIVE:
        names |= {other} if layer.get(one) is not None else set()
        names |= {one} if layer.get(other) is not None else set()
    if layer.get("optimizer", "sgd") != "sgd":
        names.add("nesterov")
    if layer.get("learning_rate_schedule") == "cosine":
        names.add("milestones")
    if layer.get("milestones"):
        names.add("learning_rate_schedule")
    return names


def check(config: Config) -> None:
    """Raises InputError, naming the option, for the first setting whose value cannot be used."""
    values = flat(config.to_json())
    for setting, kind, _ in settings():
        checks.of_its_kind(setting.name, values[setting.name], kind, setting.metadata["choices"])
    checks.numbers(values)
    checks.combinations(values)
