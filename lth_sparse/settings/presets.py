"""The presets, as data: settings by their names in `config.py`. Every one can be overridden on the command line.

`paper/...`: Frankle and Carbin 2019 (arXiv:1803.03635), figure 2 and appendix A; the iterations, batch size, optimizer
and rates are the paper's; the number of rounds reaches its sparsest points.

`openlth/...`: the optimizer, schedule and pruning of open_lth, but they rewind to an early step, because at this
learning rate rewinding to initialisation does no better than random pruning (Frankle et al. 2020, arXiv:1912.05671);
a tenth of the training images is held back for validation, BatchNorm starts at 1, VGG's convolutions have no bias.

`seed`: one run of the coursework this project started from, whose whole study is `experiments/coursework.py`; its
optimizer settings were not recorded, those here are ours.
"""

from typing import Any

_PAPER_CONV: dict[str, Any] = {
    "dataset": "cifar10",
    "optimizer": "adam",
    "batch_size": 60,
    "evaluate_every": 100,
    "fc_rate": 0.2,
    "rounds": 20,
    "scope": "layerwise",
}

_OPENLTH: dict[str, Any] = {
    "dataset": "cifar10",
    "augmentation": "crop-flip",
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "batch_size": 128,
    "epochs": 160,
    "milestones": (0.5, 0.75),
    "evaluate_every": 351,
    "prune_rate": 0.2,
    "scope": "global",
    "rounds": 20,
}

INTERPRETED: dict[str, Any] = {"dataset": "digits", "iterations": 40, "evaluate_every": 20, "rounds": 2}
"""The size of a run whose kernels Triton's interpreter runs, instead of a preset's: what takes a few minutes there."""

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "model": "small",
        "optimizer": "adam",
        "learning_rate": 2e-3,
        "batch_size": 64,
        "iterations": 700,
        "evaluate_every": 100,
        "rounds": 6,
        "conv_rate": 0.2,
        "fc_rate": 0.4,
        "output_rate": 0.2,
        "controls": ("random",),
    },
    "seed": {
        "model": "network",
        "dataset": "cifar10",
        "normalization": "half",
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.9,
        "batch_size": 128,
        "epochs": 6,
        "rounds": 5,
        "sparsity": 0.5,
        "schedule": "seed",
        "scope": "layerwise",
        "controls": ("random",),
    },
    "paper/lenet": {
        "model": "lenet-300-100",
        "dataset": "mnist",
        "optimizer": "adam",
        "learning_rate": 1.2e-3,
        "batch_size": 60,
        "iterations": 50_000,
        "evaluate_every": 100,
        "fc_rate": 0.2,
        "output_rate": 0.1,
        "rounds": 20,
        "scope": "layerwise",
    },
    "paper/conv2": _PAPER_CONV
    | {"model": "conv2", "learning_rate": 2e-4, "iterations": 20_000, "conv_rate": 0.1, "output_rate": 0.1},
    "paper/conv4": _PAPER_CONV
    | {"model": "conv4", "learning_rate": 3e-4, "iterations": 25_000, "conv_rate": 0.1, "output_rate": 0.1},
    "paper/conv6": _PAPER_CONV
    | {"model": "conv6", "learning_rate": 3e-4, "iterations": 30_000, "conv_rate": 0.15, "output_rate": 0.1},
    "openlth/resnet20": _OPENLTH | {"model": "resnet20", "rewind_iteration": 500},
    "openlth/vgg16": _OPENLTH | {"model": "vgg16", "rewind_iteration": 1000, "output_rate": 0.0},
}
