"""The claims, as data. Figures are those of the sources that are named, in percent of the test images.

A size below the published one keeps the densities that a claim is about: it prunes to them in fewer rounds, and trains
for fewer steps, on smaller images or on fewer of them. What that leaves of the claim each statement says.
"""

from __future__ import annotations

from typing import Any

from lth_sparse.experiments.claims.claim import PERCENT, STEPS, Barrier, Claim, Column, Size, Statement, Transfer

FRANKLE_CARBIN = "Frankle and Carbin 2019, arXiv:1803.03635"


def _of_convolutions(name: str, density: float, gain: str, figure: str, replicated: str) -> Claim:
    model = name.removeprefix("lth-")
    left = f"{100 * density:.1f} %"
    sparsity = {"sparsity": 1 - density, "rounds": 7}
    return Claim(
        name,
        f"{FRANKLE_CARBIN}, {figure}",
        {"lottery": {"preset": f"paper/{model}", "controls": ("reinit", "random")}},
        (
            Size("full", 5),
            Size("reduced", 3, sparsity | {"image_size": 16, "iterations": 1500}),
            Size("small", 3, sparsity | {"image_size": 16, "iterations": 400, "rounds": 4}),
        ),
        (
            Statement(
                f"with {left} of the weights, stopped early, it is better than the dense network stopped early",
                f"{gain} points{replicated}",
                Column("lottery", density, "accuracy_early_stop"),
                Column("lottery", 1.0, "accuracy_early_stop"),
                at_full_size=True,
            ),
            Statement(
                f"with {left} of the weights it is better than its mask on new initial weights",
                "in figures alone",
                Column("lottery", density),
                Column("lottery", density, "accuracy_reinit"),
            ),
            Statement(
                f"with {left} of the weights it is better than a random mask of the same layer densities",
                "in figures alone",
                Column("lottery", density),
                Column("lottery", density, "accuracy_random"),
            ),
        ),
    )


_RENDA: dict[str, Any] = {
    "preset": "openlth/resnet20",
    "epochs": 182,
    "rounds": 7,
    "rewind_iteration": 0,
}
_RENDA_SMALL: dict[str, Any] = {"image_size": 16, "evaluate_every": 100, "rounds": 3, "sparsity": 0.79}

_STABLE: dict[str, Any] = {"preset": "openlth/resnet20", "rewind_iteration": 0, "rounds": 8}

_PRUNED_BEFORE: dict[str, Any] = {
    "preset": "openlth/vgg16",
    "milestones": (0.375, 0.75),
    "prune_at": "start",
    "rewind_iteration": 0,
    "rounds": 1,
    "sparsity": 0.9968,
    "output_rate": None,
}

_WIDE: dict[str, Any] = {
    "preset": "openlth/resnet20",
    "model": "wrn-22-2",
    "weight_decay": 5e-4,
    "epochs": 250,
    "rewind_iteration": 0,
    "rounds": 1,
    "sparsity": 0.95,
    "criterion": "erk",
    "prune_at": "start",
    "dynamic": "rigl",
    "controls": ("static",),
}

_MORCOS: dict[str, Any] = {"preset": "openlth/vgg16", "model": "vgg19", "rewind_iteration": 351, "rounds": 20}

CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claim in (
        Claim(
            "lth-lenet",
            f"{FRANKLE_CARBIN}, figures 3 and 4",
            {"lottery": {"preset": "paper/lenet", "controls": ("reinit",)}},
            (
                Size("full", 5),
                Size("reduced", 3, {"dataset": "mnist-5k", "iterations": 15_000, "rounds": 10}),
                Size("small", 3, {"dataset": "mnist-5k", "iterations": 2000, "rounds": 5, "sparsity": 0.865}),
            ),
            (
                Statement(
                    "with 13.5 % of the weights, stopped early, it is better than the dense network stopped early",
                    "more than +0.3 points",
                    Column("lottery", 0.135, "accuracy_early_stop"),
                    Column("lottery", 1.0, "accuracy_early_stop"),
                    at_full_size=True,
                ),
                Statement(
                    "with 13.5 % of the weights it is better than its mask on new initial weights",
                    "in figures alone",
                    Column("lottery", 0.135),
                    Column("lottery", 0.135, "accuracy_reinit"),
                ),
                Statement(
                    "with 21.1 % of the weights it is stopped earlier than the dense network",
                    "38 % earlier",
                    Column("lottery", 0.211, "early_stop_iteration"),
                    Column("lottery", 1.0, "early_stop_iteration"),
                    above=None,
                    unit=STEPS,
                ),
            ),
        ),
        _of_convolutions("lth-conv2", 0.046, "+3.4", "figure 5", "; +0.23 in a pre-registered replication"),
        _of_convolutions("lth-conv4", 0.111, "+3.5", "figure 5", "; +1.84 in a pre-registered replication"),
        _of_convolutions("lth-conv6", 0.264, "+3.3", "figure 5", ""),
        Claim(
            "renda-resnet20",
            "Renda, Frankle and Carbin 2020, arXiv:2003.02389, the data of its figures",
            {
                "learning-rate rewinding": _RENDA | {"rewind": "learning-rate"},
                "weight rewinding": _RENDA | {"rewind_iteration": 4212},
                "fine-tuning": _RENDA | {"rewind": "none"},
            },
            (
                Size("full", 3),
                Size(
                    "reduced", 3, _RENDA_SMALL | {"iterations": 1500}, {"weight rewinding": {"rewind_iteration": 100}}
                ),
                Size("small", 3, _RENDA_SMALL | {"iterations": 300}, {"weight rewinding": {"rewind_iteration": 20}}),
            ),
            (
                Statement(
                    "with 21 % of the weights, rewinding the learning rate is better than fine-tuning",
                    "+1.43 points",
                    Column("learning-rate rewinding", 0.21),
                    Column("fine-tuning", 0.21),
                ),
                Statement(
                    "with 21 % of the weights, rewinding the learning rate is no more than half a point behind "
                    "rewinding weights",
                    "+0.22 points",
                    Column("learning-rate rewinding", 0.21),
                    Column("weight rewinding", 0.21),
                    above=-0.005,
                ),
                Statement(
                    "with 21 % of the weights, rewinding the learning rate is no more than half a point behind dense",
                    "+0.18 points",
                    Column("learning-rate rewinding", 0.21),
                    Column("learning-rate rewinding", 1.0),
                    above=-0.005,
                    at_full_size=True,
                ),
            ),
        ),
        Claim(
            "lmc-resnet20",
            "Frankle, Dziugaite, Roy and Carbin 2020, arXiv:1912.05671, figures 3 and 5",
            {
                "from 0": _STABLE | {"instability": (0, 500, 2000)},
                "from 500": _STABLE | {"rewind_iteration": 500, "instability": (500,)},
            },
            (
                Size("full", 3),
                Size(
                    "reduced",
                    3,
                    {"image_size": 16, "iterations": 1500, "evaluate_every": 100, "rounds": 3, "sparsity": 0.832},
                    {
                        "from 0": {"instability": (0, 12, 50)},
                        "from 500": {"rewind_iteration": 12, "instability": (12,)},
                    },
                ),
                Size(
                    "small",
                    3,
                    {"image_size": 16, "iterations": 200, "evaluate_every": 100, "rounds": 1, "sparsity": 0.832},
                    {"from 0": {"instability": (0, 2, 7)}, "from 500": {"rewind_iteration": 2, "instability": (2,)}},
                ),
            ),
            (
                Statement(
                    "from initialisation the dense network is unstable: its barrier is above 2 points",
                    "figures alone; unstable",
                    Barrier("from 0", 1.0, 0),
                    above=0.02,
                ),
                Statement(
                    "from 3 % of the training on the dense network is stable: its barrier is below 2 points",
                    "figures alone; stable from step 2000",
                    Barrier("from 0", 1.0, -1),
                    above=None,
                    below=0.02,
                    at_full_size=True,
                ),
                Statement(
                    "rewound to initialisation, its ticket with 16.8 % of the weights is unstable",
                    "figures alone; unstable",
                    Barrier("from 0", 0.168, 0),
                    above=0.02,
                ),
                Statement(
                    "rewound to 0.8 % of the training, its ticket with 16.8 % of the weights is stable",
                    "figures alone; stable from step 500",
                    Barrier("from 500", 0.168, 0),
                    above=None,
                    below=0.02,
                    at_full_size=True,
                ),
            ),
        ),
        Claim(
            "seed-network",
            "the student project that this one began with (2023); its runs never rewound",
            {"lottery": {"preset": "seed", "epochs": 6, "rounds": 5, "controls": ("random",)}},
            (
                Size("full", 3),
                Size("reduced", 3, {"iterations": 600, "rounds": 2}),
                Size("small", 3, {"image_size": 16, "iterations": 150, "rounds": 1}),
            ),
            (
                Statement(
                    "with half of the weights it is better than the dense network",
                    "+1.53 points, one run",
                    Column("lottery", 0.5),
                    Column("lottery", 1.0),
                ),
                Statement(
                    "with half of the weights it is better than a random mask",
                    "+0.53 points, one run",
                    Column("lottery", 0.5),
                    Column("lottery", 0.5, "accuracy_random"),
                ),
            ),
        ),
        Claim(
            "pai-vgg16",
            "Tanaka et al. 2020, arXiv:2006.05467, the data of its figure 6",
            {name: _PRUNED_BEFORE | {"criterion": name} for name in ("synflow", "magnitude", "snip", "random")},
            (
                Size("full", 3),
                Size("reduced", 3, {"image_size": 16, "iterations": 600, "evaluate_every": 100}),
                Size("small", 3, {"image_size": 16, "iterations": 200, "evaluate_every": 100}),
            ),
            (
                Statement(
                    "with 0.32 % of the weights, pruned by SynFlow before training, it learns",
                    "86.81 %, chance is 10 %",
                    Column("synflow", 0.0032),
                    above=0.15,
                    unit=PERCENT,
                ),
                Statement(
                    "with 0.32 % of the weights, pruned by magnitude before training, it stays at chance",
                    "10.03 %",
                    Column("magnitude", 0.0032),
                    above=None,
                    below=0.12,
                    unit=PERCENT,
                ),
                Statement(
                    "with 0.32 % of the weights, SynFlow is better than SNIP",
                    "+2.16 points",
                    Column("synflow", 0.0032),
                    Column("snip", 0.0032),
                    at_full_size=True,
                ),
                Statement(
                    "with 0.32 % of the weights, SynFlow is better than a random mask",
                    "+37.8 points",
                    Column("synflow", 0.0032),
                    Column("random", 0.0032),
                ),
            ),
        ),
        Claim(
            "morcos-transfer",
            "Morcos et al. 2019, arXiv:1906.02773, figure 4, which has curves alone",
            {"source": _MORCOS},
            (
                Size("full", 3),
                Size(
                    "reduced",
                    3,
                    {
                        "model": "conv4",
                        "image_size": 16,
                        "iterations": 1000,
                        "evaluate_every": 100,
                        "learning_rate": 0.02,
                        "rewind_iteration": 50,
                        "rounds": 4,
                        "sparsity": 0.9,
                    },
                ),
                Size(
                    "small",
                    3,
                    {
                        "model": "conv2",
                        "image_size": 16,
                        "iterations": 300,
                        "evaluate_every": 100,
                        "learning_rate": 0.02,
                        "rewind_iteration": 20,
                        "rounds": 2,
                        "sparsity": 0.9,
                    },
                ),
            ),
            (
                Statement(
                    "a ticket of CIFAR-10 with 10 % of the weights is better on Fashion-MNIST than a random mask",
                    "in figures alone",
                    Column("target", 0.1),
                    Column("target", 0.1, "accuracy_random"),
                ),
                Statement(
                    "on Fashion-MNIST it is no more than one point behind the dense network",
                    "in figures alone",
                    Column("target", 0.1),
                    Column("target", 1.0),
                    above=-0.01,
                    at_full_size=True,
                ),
            ),
            {"target": Transfer("source", 0.1, {"dataset": "fashion-mnist"})},
        ),
        Claim(
            "rigl-wrn",
            "Evci et al. 2020, arXiv:1911.11134; the figures are its author's, google-research/rigl#8",
            {"rigl": _WIDE},
            (
                Size("full", 3),
                Size("reduced", 3, {"image_size": 16, "iterations": 800, "evaluate_every": 100}),
                Size("small", 3, {"image_size": 16, "iterations": 150, "evaluate_every": 50}),
            ),
            (
                Statement(
                    "with 5 % of the weights, RigL is better than the same mask left as it is (ERK)",
                    "+2.8 points; +1.9 at 20 % in an independent reproduction",
                    Column("rigl", 0.05),
                    Column("rigl", 0.05, "accuracy_static"),
                ),
            ),
        ),
    )
}
"""By name. Each can be tested at its published size, and at smaller ones."""
