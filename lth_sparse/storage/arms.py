"""The arms of a round as its record has them: their names, their columns, and the words for them."""

from __future__ import annotations

from dataclasses import dataclass

from lth_sparse.storage.record import Round


@dataclass(frozen=True)
class RecordedArm:
    """One of the trainings that a round compares.

    `name`: in the record, in state files, and as a value of --controls. `column`: of `rounds.csv`, with its test
    accuracy at the end. `words`: in tables, plots and sentences. `says`: what is trained, for who reads it first.
    """

    name: str
    column: str
    words: str
    says: str

    def of(self, row: Round) -> float | None:
        """Its accuracy in `row`; None where it was not trained."""
        accuracy: float | None = getattr(row, self.column)
        return accuracy


TICKET = RecordedArm("ticket", "accuracy_retrained", "ticket", "the ticket")

CONTROLS = {
    arm.name: arm
    for arm in (
        RecordedArm(
            "random",
            "accuracy_random",
            "random mask",
            "a random mask with as many weights in each layer",
        ),
        RecordedArm(
            "reinit",
            "accuracy_reinit",
            "new initial weights",
            "the ticket's mask on initial weights drawn anew",
        ),
        RecordedArm(
            "shuffle",
            "accuracy_shuffle",
            "shuffled mask",
            "the ticket's mask shuffled within each layer",
        ),
        RecordedArm(
            "invert",
            "accuracy_invert",
            "smallest weights",
            "the smallest weights of the trained dense network, as many in each layer",
        ),
        RecordedArm(
            "sign",
            "accuracy_sign",
            "signs alone",
            "the ticket with the signs of its weights alone",
        ),
        RecordedArm(
            "rewind-none",
            "accuracy_rewind_none",
            "fine-tuned",
            "the ticket's mask on the weights as they were trained, fine-tuned",
        ),
        RecordedArm(
            "static",
            "accuracy_static",
            "static topology",
            "the mask that the ticket began with, which stays",
        ),
    )
}
"""By name, in the order in which they are shown."""


def beside(row: Round) -> list[tuple[RecordedArm, float]]:
    """The controls that were trained beside the ticket of `row`, with their accuracies."""
    found = ((arm, arm.of(row)) for arm in CONTROLS.values())
    return [(arm, accuracy) for arm, accuracy in found if accuracy is not None]
