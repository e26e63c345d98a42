"""What the commands on the pages become where they would take too long for a test, need a GPU or need a network.

A command is cut short by a setting, so that the real program still reads every option of it that is left; the reason
stands beside it. A command that no row covers runs as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Cut:
    """`command` (a regular expression) -> what `changes` (regular expressions and replacements, in turn) make of it.

    `{rounds}` in a replacement becomes the number of the last ticket that the page names.
    """

    command: str
    changes: tuple[tuple[str, str], ...]
    reason: str


def _with(options: str, *dropped: str) -> tuple[tuple[str, str], ...]:
    """The command without the options `dropped` and their values, and with `options` at its end."""
    return (*((rf" --{name}[ =]\S+", "") for name in dropped), (r"$", f" {options}"))


_LOTTERY = (
    "dataset",
    "data-dir",
    "epochs",
    "iterations",
    "evaluate-every",
    "rounds",
    "rewind-iteration",
    "rewind-epoch",
    "image-size",
)
_TRANSFER = ("dataset", "data-dir", "epochs", "iterations", "replicates")
_TINY = "--dataset digits --evaluate-every 10 --rewind-iteration 0"
_PLAYED = (
    "--rehearse --dataset digits --image-size 16 --batch-size 8 --iterations 8 --evaluate-every 8 --rounds 1 "
    "--rewind-iteration 0 --test-images 50"
)
_UNBUILT = ((r"\bpip install", "pip install --dry-run --no-deps --no-index --no-build-isolation"),)
_GUARD = 'from bench import guard; guard.SECONDS = 0.02; guard.GUARDED = [("linear", 0.9)]; guard.main()'
_OVERHEAD = "from bench import overhead; overhead.SECONDS = 0.02; overhead.main()"
_AUTOCAST = 'from bench import autocast; autocast.SECONDS = 0.02; autocast.GOALS.pop("c128"); autocast.main()'
_AT_ONCE = (
    'from bench import two_processes; two_processes.LOTTERY = (*two_processes.LOTTERY, "--iterations", "4", '
    '"--rounds", "1"); two_processes.main()'
)
_THREADS = "from bench import threads; threads.CASES, threads.THREADS = threads.CASES[-1:], (8,); threads.main()"
_STUDY = (
    "import sys; from lth_sparse import report, run; from lth_sparse.experiments import coursework; "
    "coursework.SPARSITIES, coursework.SPLITS, report.pictures = (0.5,), ((1, 30),), lambda info, record: []; "
    "sys.exit(run.main(sys.argv[1:]))"
)
_PARSED = "import sys; from packaging.requirements import Requirement; [*map(Requirement, sys.argv[1:])]"
_ONE_FILE = "tests/lottery/test_pruning.py -k ties"
_RECIPE = ((r"^make", "make --dry-run"),)

CUTS = (
    Cut(r"--help$", (), "it prints and ends"),
    Cut(
        r"^python -m lth_sparse\.run .*--preset coursework",
        (
            (r"^python -m lth_sparse\.run", f"python -c '{_STUDY}'"),
            (r" --budget \S+", ""),
            *_with(
                "--dataset digits --model lenet-300-100 --iterations 10 --backend dense",
                *("model", "dataset", "replicates"),
            ),
        ),
        "hours to days, and a download, so one sparsity in one split of ten steps on digits, no plots",
    ),
    Cut(
        r"^python -m lth_sparse\.run .*--backend triton",
        _with(f"{_TINY} --iterations 2 --rounds 1 --model lenet-300-100 --batch-size 4", *_LOTTERY),
        "4 minutes, so a smaller network and 2 steps; Triton's interpreter runs the same kernels",
    ),
    Cut(
        r"^python -m lth_sparse\.run .*--model torchvision:",
        _with(f"{_TINY} --iterations 10 --rounds {{rounds}} --model small", "model", *_LOTTERY),
        "minutes, and images of three channels, which digits have not, so another network and 10 steps a round",
    ),
    Cut(
        r"^(python -m lth_sparse\.|lth )run .*--instability",
        _with(f"{_TINY} --model small --iterations 10 --rounds 1 --instability 0,5", "instability", "model", *_LOTTERY),
        "minutes, so 10 steps a round on digits, two of them copied, a small network and one ticket",
    ),
    Cut(
        r"^(python -m lth_sparse\.|lth )run .*--replicates",
        _with(f"{_TINY} --iterations 10 --rounds {{rounds}} --replicates 2", "replicates", *_LOTTERY),
        "minutes to days, and a download, so 10 steps a round on digits, two seeds",
    ),
    Cut(
        r"^(python -m lth_sparse\.|lth )run .*(--dynamic|--schedule gradual)",
        _with(
            f"{_TINY} --model lenet-300-100 --iterations 10 --update-every 3 --rounds 1", "preset", "model", *_LOTTERY
        ),
        "minutes to days, and a download, so 10 steps of a small network on digits, with two updates",
    ),
    Cut(
        r"^(python -m lth_sparse\.|lth )run\b",
        _with(f"{_TINY} --iterations 10 --rounds {{rounds}}", *_LOTTERY),
        "minutes to days, and a download, so 10 steps a round on digits",
    ),
    Cut(
        r"^make run\b",
        ((r"$", f' ARGS="{_TINY} --iterations 10 --rounds {{rounds}}"'),),
        "minutes, and a download, so 10 steps a round on digits",
    ),
    Cut(
        r"^(python -m lth_sparse\.|lth )(transfer|sweep( SPEC)?|reproduce( CLAIM)?)$",
        ((r"$", " --help"),),
        "it needs a ticket or a file, so its options are read",
    ),
    Cut(
        r"^python -m lth_sparse\.sweep sweep.yaml .*--on (ray|slurm)",
        ((r"$", " --help"),),
        "a cluster, so its options are read",
    ),
    Cut(
        r"^python -m lth_sparse\.sweep sweep.yaml",
        ((r"^", "sed -i 's/^seeds.*/seeds: 1/; s/rounds: 3/rounds: 1, iterations: 10/' sweep.yaml && "),),
        "minutes, so one seed, and one round of 10 steps",
    ),
    Cut(
        r"^(python -m lth_sparse\.|lth )reproduce\b",
        ((r" --budget \S+", " --size small"), *_with("--help", "cifar10")),
        "minutes to days, and data sets, so its options are read",
    ),
    Cut(
        r"^(python -m lth_sparse\.|lth )transfer .*--model",
        _with("--iterations 3 --evaluate-every 3 --model conv2", *_TRANSFER, "model"),
        "minutes, so 3 steps, on a network that has layers of the ticket's names",
    ),
    Cut(
        r"^(python -m lth_sparse\.|lth )transfer .*--ticket",
        _with("--iterations 3 --evaluate-every 3 --dataset digits --replicates 1", *_TRANSFER),
        "minutes, and a data set, so 3 steps on digits, one seed",
    ),
    Cut(
        r"^python -m lth_sparse\.verify .*--(ticket|model \w+:)",
        _with("--steps 2 --batch-size 2"),
        "a minute, so 2 images and 2 steps",
    ),
    Cut(
        r"^(python -m lth_sparse\.|lth )infer .*torchvision:",
        _with("--seconds 0.1 --model torchvision:resnet18 --input-shape 3,32,32", "model", "input-shape"),
        "half a minute, so a smaller network, smaller images and a moment",
    ),
    Cut(
        r"^(python -m lth_sparse\.|lth )infer\b",
        ((r"$", " --seconds 0.1"),),
        "ten seconds of a quiet machine, so a moment, whose ratios do not count",
    ),
    Cut(
        r"^(python -m lth_sparse\.|lth )verify\b",
        ((r"(--sparsity \d?\.\d+)[,\d.]*", r"\1"), *_with("--model small --steps 2 --batch-size 2", "model")),
        "a minute and more, so the smallest network, 2 images and 2 steps",
    ),
    Cut(
        r"^python examples/serve_a_ticket\.py .*--load-test",
        _with("--load-test 0.4", "load-test"),
        "half a minute of a quiet machine, so a moment, whose figures do not count",
    ),
    Cut(
        r"^python examples/serve_a_ticket\.py ",
        ((r"$", " --help"),),
        "it serves until it is stopped, so its options are read",
    ),
    Cut(
        r"^python -m bench\.lottery\b",
        _with(f"{_PLAYED} --results build/lottery", *_LOTTERY, "test-images"),
        "half an hour and more, and a data set, so 8 steps a round on digits",
    ),
    Cut(
        r"^python -m bench\.accuracy\b",
        _with("--dataset digits --iterations 4 --evaluate-every 4 --rounds 1 --seeds 1 --results build", *_LOTTERY),
        "minutes, and a data set, so 4 steps a round on digits, one seed",
    ),
    Cut(
        r"^python -m bench\.overhead$",
        ((r".*", f"python -c '{_OVERHEAD}'"),),
        "half a minute of a quiet machine, so a moment, whose ratios do not count",
    ),
    Cut(
        r"^python -m bench\.autocast$",
        ((r".*", f"python -c '{_AUTOCAST}'"),),
        "half a minute of a quiet machine, so a moment of one layer, whose ratios do not count",
    ),
    Cut(
        r"\bpython -m bench\.threads$",
        ((r"python -m bench\.threads", f"python -c '{_THREADS}'"),),
        "half a minute of a quiet machine, so one layer by 8 threads",
    ),
    Cut(
        r"^python -m bench\.two_processes$",
        ((r".*", f"python -c '{_AT_ONCE}'"),),
        "a minute of a quiet machine, so 4 steps of one round, whose ratio does not count",
    ),
    Cut(r"^python -m bench\.scale$", ((r"$", " --help"),), "two minutes, so its options are read"),
    Cut(r"^python -m bench\.busy\b", ((r"$", " --help"),), "two minutes of a quiet machine, so its options are read"),
    Cut(
        r"^make bench(-full)? ARGS=",
        ((r"\"$", ' --collect-only -q"'),),
        "minutes, so pytest chooses the cases, and they are not measured",
    ),
    Cut(
        r"^make bench(-full)?$",
        ((r"$", ' ARGS="--collect-only -q"'),),
        "minutes, so pytest chooses the cases, and they are not measured",
    ),
    Cut(
        r"\bpytest bench/",
        ((r"$", " --collect-only -q"),),
        "minutes, so pytest chooses the cases, and they are not measured",
    ),
    Cut(
        r"^python -m bench\.guard$",
        ((r".*", f"python -c '{_GUARD}'"),),
        "two minutes of a quiet machine, so one layer for a moment, whose ratio does not count",
    ),
    Cut(
        r"^pytest$",
        ((r"$", f" {_ONE_FILE}"),),
        "it would run this test again, so one file of the tests",
    ),
    Cut(r"^pytest docs/", ((r"$", " --collect-only -q"),), "the page's tests run by themselves, so they are listed"),
    Cut(r"^\.ci/run$", ((r"^", "bash -n "),), "it would run this test again, so bash reads it and runs nothing"),
    Cut(
        r"^make (test|test-long|lint|docs|dist|notebook|sanitize|clang|unchanged|sweeps|kernels|guard|lottery|fuzz"
        r"|long-runs|faults)\b",
        _RECIPE,
        "a minute or more, and .ci/run or a test does it, so make says what it would do",
    ),
    Cut(r"^make model$", ((r"$", ' ARGS="--help"'),), "half a minute, so its options are read"),
    Cut(r"^make model ARGS=", ((r"\"$", ' --help"'),), "half a minute, so its options are read"),
    Cut(r"^make gpu\b", _RECIPE, "for a GPU, and its rehearsal takes minutes, so make says what it would do"),
    Cut(
        r"^make tune$",
        ((r"$", ' PYTHON=python ARGS="--rehearse --out tuned.json"'),),
        "for a GPU, so its rehearsal",
    ),
    Cut(r"^python -m bench\.gpu\b", ((r"$", " --help"),), "for a GPU, so its options are read"),
    Cut(
        r"^pip install -r requirements\S*$",
        ((r"install", "install --dry-run --no-index"),),
        "a download, so pip looks whether all of it is installed",
    ),
    Cut(
        r"^LTH_SPARSE_CUDA=1 pip install",
        ((r"=1", "=0"), *_UNBUILT),
        "a minute, and it has to fail without nvcc, so pip reads the project and installs nothing",
    ),
    Cut(
        r"\bpip install .*(\.|'\.\[\w+\]')$",
        _UNBUILT,
        "a minute and a download, so pip reads the project and installs nothing",
    ),
    Cut(
        r"^pip install ",
        ((r"^pip install", f"python -c '{_PARSED}'"),),
        "a download, so its requirements are parsed",
    ),
)  # fmt: skip

NEEDED = (
    (r"(runs/[\w/-]+?)/(tickets|choices|config)", r"python -m lth_sparse.run --out \1"),
    (
        r"\bmy_module:my_network\b",
        "echo 'from torch import nn\ndef my_network(input_shape, num_classes):\n    return nn.Sequential("
        "nn.Conv2d(input_shape[0], 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), "
        "nn.Linear(64, num_classes))' > my_module.py",
    ),
)  # fmt: skip
"""What a command takes for granted -> the command that makes it, for the pages that do not begin with it."""


def shortened(command: str, rounds: int = 1) -> tuple[str, str]:
    """What runs in place of `command`, and why; the command itself and "" where nothing has to be cut."""
    for cut in CUTS:
        if re.search(cut.command, command):
            for pattern, replacement in cut.changes:
                command = re.sub(pattern, replacement.replace("{rounds}", str(rounds)), command, count=1)
            return command, cut.reason
    return command, ""
