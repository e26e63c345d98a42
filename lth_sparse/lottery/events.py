"""What happens in a run, told as it happens to whoever listens: a function of the user's own, TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lth_sparse.storage.record import Round
from lth_sparse.system import users_code
from lth_sparse.system.errors import InputError, because

if TYPE_CHECKING:  # Which imports data sets: `import lth_sparse` does without.
    from lth_sparse.lottery.training import Training


@dataclass(frozen=True)
class StepEvent:
    """A step of a training is over.

    `round`: 0 trains the dense network. `arm`: "ticket", or what is trained beside it: a control, such as "random", or
    a copy for the analysis of instability, such as "copy-2-from-0".
    `iteration`: steps of this training so far, out of `total`. `images_per_second`: of its training alone, so far.
    """

    round: int
    arm: str
    iteration: int
    total: int
    images_per_second: float


@dataclass(frozen=True)
class EvaluationEvent:
    """An evaluation on the validation images is over: a row of `curves.csv`.

    As `StepEvent`; `train_loss` is the mean since the evaluation before, `validation_accuracy` a fraction.
    """

    round: int
    arm: str
    iteration: int
    total: int
    images_per_second: float
    train_loss: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class RoundEvent:
    """A round is over, its ticket and tables written. `row`: its row of `rounds.csv`, a dataclass, too."""

    row: Round
    images_per_second: float


Event = StepEvent | EvaluationEvent | RoundEvent
Listener = Callable[[Event], Any]


def tell(listeners: Sequence[Listener], event: Event) -> None:
    """Calls each of `listeners` with `event`."""
    for listener in listeners:
        listener(event)


def tell_of_step(listeners: Sequence[Listener], training: Training, arm: str) -> None:
    """Tells of the step that `training` has just made, and of the evaluation after it, if there was one."""
    if not listeners:
        return
    where = (training.round, arm, training.iteration, training.total, training.images_per_second)
    tell(listeners, StepEvent(*where))
    if training.curve and training.curve[-1].iteration == training.iteration:
        point = training.curve[-1]
        tell(listeners, EvaluationEvent(*where, point.train_loss, point.validation_loss, point.validation_accuracy))


def users_listener(name: str) -> Listener:
    """The function `name`, "module:function", of the user's own, which is called with one event.

    Raises InputError where there is none, or none that can be called so; the listener does for what it raises.
    """
    where = f"--callback {name}"
    function = users_code.function(name, where)
    users_code.check_takes_one(function, "event", where)

    def listen(event: Event) -> None:
        try:
            function(event)
        except Exception as error:
            raise InputError(
                f"{where}: called with a {type(event).__name__} it raised {because(error)}; mend it, and --resume goes "
                "on from the last saved epoch"
            ) from error

    return listen
