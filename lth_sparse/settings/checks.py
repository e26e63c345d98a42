"""What the values of settings have to be, each by itself and beside the others: one sentence for what cannot be used.

`values`: every setting by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lth_sparse.system.errors import InputError
from lth_sparse.system.suggest import nearest

Values = Mapping[str, Any]

FLOAT32_MAX = 3.4e38
INT32_MAX = 2**31 - 1
LARGEST_IMAGE = 4096
MOST_ROUNDS = 1000

KINDS_OF_RATE = ("conv_rate", "fc_rate", "output_rate")


def flag(name: str) -> str:
    """The command-line option of the setting called `name`."""
    return "--" + name.replace("_", "-")


def _require(condition: bool, values: Values, name: str, expected: str) -> None:
    if not condition:
        raise InputError(f"{flag(name)} {values[name]}: expected {expected}")


def of_its_kind(name: str, value: Any, kind: type, choices: Sequence[str] | None) -> None:
    """Raises InputError for a value that is none of its choices, or too large for its kind."""
    known = choices or ()
    for each in () if value is None else value if kind is tuple else (value,):
        if known and each not in known:
            of = "some" if kind is tuple else "one"
            raise InputError(f"{flag(name)} {each}: expected {of} of {', '.join(known)}{nearest(str(each), known)}")
    if kind is float and value is not None and not abs(value) <= FLOAT32_MAX:
        raise InputError(f"{flag(name)} {value}: expected a finite number, at most {FLOAT32_MAX:.1e}")
    if kind is int and value is not None and name != "seed" and value > INT32_MAX:
        raise InputError(f"{flag(name)} {value}: expected at most {INT32_MAX}")


def numbers(values: Values) -> None:
    """Raises InputError for a number out of its range."""

    def require(condition: bool, name: str, expected: str) -> None:
        _require(condition, values, name, expected)

    for name in ("batch_size", "epochs", "iterations", "evaluate_every", "update_every", "image_size"):
        require(values[name] is None or values[name] >= 1, name, "a whole number of at least 1")
    for name in ("rounds", "warmup", "rewind_iteration", "rewind_epoch", "momentum", "weight_decay", "seed"):
        require(values[name] is None or values[name] >= 0, name, "a number of at least 0")
    require(values["learning_rate"] > 0, "learning_rate", "a number above 0")
    require((values["image_size"] or 1) <= LARGEST_IMAGE, "image_size", f"at most {LARGEST_IMAGE} pixels")
    require(values["rounds"] <= MOST_ROUNDS, "rounds", f"at most {MOST_ROUNDS}")
    for name in ("prune_rate", *KINDS_OF_RATE, "sparsity"):
        require(values[name] is None or 0 <= values[name] < 1, name, "a fraction in [0, 1), such as 0.9 for 90 %")
    require(all(0 < fraction < 1 for fraction in values["milestones"]), "milestones", "fractions between 0 and 1")
    for step in values["instability"]:
        require(0 <= step <= INT32_MAX, "instability", "steps of the dense training, from 0 on")


def combinations(values: Values) -> None:
    """Raises InputError for settings that make no sense beside each other."""
    for subject in (_training, _schedule, _rewinding, _topology, _controls, _instability):
        subject(values)
    for name in ("controls", "instability"):
        if twice := sorted({each for each in values[name] if list(values[name]).count(each) > 1}):
            raise InputError(f"{flag(name)}: {', '.join(map(str, twice))} is given twice")


def _training(values: Values) -> None:
    if values["nesterov"] and (values["optimizer"] != "sgd" or values["momentum"] == 0):
        raise InputError(
            f"--nesterov: it is sgd's momentum, given --optimizer {values['optimizer']} --momentum "
            f"{values['momentum']}; take it back (--no-nesterov), or give sgd a momentum above 0"
        )
    if values["learning_rate_schedule"] == "cosine":
        if values["milestones"]:
            raise InputError("--milestones: --learning-rate-schedule cosine falls by itself; leave one of the two out")
        if values["rewind"] == "none" or "rewind-none" in values["controls"]:
            raise InputError(
                "--learning-rate-schedule cosine ends at 0, at which --rewind none and the control rewind-none would "
                "fine-tune: leave them out, or give it step"
            )


def _schedule(values: Values) -> None:
    nothing = values["rounds"] == 0 and values["sparsity"]
    _require(not nothing, values, "sparsity", "no final sparsity, because --rounds 0 prunes nothing")
    if values["schedule"] == "seed":
        high = values["sparsity"] is not None and values["sparsity"] > 0.01
        _require(high, values, "sparsity", "a final sparsity above 0.01, which --schedule seed needs")
    if values["schedule"] != "gradual":
        return
    if values["rounds"] != 1 or values["sparsity"] is None:
        raise InputError(
            "--schedule gradual prunes in a single training, down to a final sparsity: give it --rounds 1 and "
            "--sparsity, such as 0.95"
        )
    others = {"criterion": "magnitude", "prune_at": "end", "dynamic": "none"}
    if given := [f"{flag(name)} {values[name]}" for name, only in others.items() if values[name] != only]:
        raise InputError(
            f"{given[0]}: --schedule gradual starts dense, and prunes by magnitude while it trains; leave one of the "
            "two out"
        )


def _rewinding(values: Values) -> None:
    if values["prune_at"] == "start" and (values["rewind"] != "weights" or "rewind-none" in values["controls"]):
        raise InputError(
            "--prune-at start chooses among all weights anew, and those that the last round had pruned were not "
            "trained: give it --rewind weights, and no control rewind-none"
        )
    if values["rewind"] == "aliased" and (
        values["backend"] != "dense" or values["controls"] or values["schedule"] == "one-shot"
    ):
        raise InputError(
            "--rewind aliased emulates a program of plain PyTorch, which prunes what its last round has trained: give "
            "it --backend dense, --controls none, and another schedule than one-shot"
        )


def _topology(values: Values) -> None:
    changing = {"dynamic": values["dynamic"] != "none", "schedule": values["schedule"] == "gradual"}
    for name in (name for name, changes in changing.items() if changes):
        if values["instability"] or values["rewind"] == "aliased":
            other = "--instability" if values["instability"] else "--rewind aliased"
            raise InputError(
                f"{flag(name)} {values[name]}: the topology changes in training, and {other} needs one that stays; "
                "leave one of the two out"
            )


def _controls(values: Values) -> None:
    controls(values["criterion"], values["controls"])
    if "static" in values["controls"] and values["dynamic"] == "none":
        raise InputError(
            "--controls static: where the topology of the ticket stays that is the ticket itself; give it --dynamic "
            "set or rigl, or leave it out (--controls none)"
        )
    if values["rewind"] == "none" and "rewind-none" in values["controls"]:
        raise InputError("--controls rewind-none: with --rewind none that is the ticket itself; leave one of them out")


def _instability(values: Values) -> None:
    if values["instability"] and values["rewind"] != "weights":
        raise InputError(
            f"--instability trains copies of tickets from their rewind weights, and --rewind {values['rewind']} goes "
            "back to none: give it --rewind weights, or leave it out"
        )


def controls(criterion: str, controls: Sequence[str]) -> None:
    """Raises InputError for a control that says nothing beside tickets of this criterion."""
    for control in controls:
        if control in ("random", "shuffle") and criterion in ("random", "erk"):
            raise InputError(
                f"controls: {control} beside a criterion that is random itself ({criterion}) says nothing: leave it "
                "out (--controls none)"
            )
        if control == "invert" and criterion != "magnitude":
            raise InputError(
                f"controls: invert turns magnitudes over, and the criterion is {criterion}: leave it out "
                "(--controls none)"
            )
