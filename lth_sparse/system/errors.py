"""The ways in which a run ends early, each told in one sentence."""


class InputError(ValueError):
    """Something that the user gave cannot be used. The message says what was given, what was expected, what to do."""


class ProofError(RuntimeError):
    """The run could not prove its own rewind: its results would not be a lottery ticket's, so it stops."""


class BackendError(ValueError):
    """A backend that is not known, or that cannot be used here. The message says why in one sentence."""


GO_ON = "the same command with --resume and this --out goes on from the last saved epoch"


class ProcessesError(RuntimeError):
    """Processes that train together cannot go on: one has ended, or they do not agree. The message says which."""


OURS = (InputError, BackendError, ProofError, ProcessesError)
"""What is told by its message alone."""


def reason(error: Exception) -> str:
    """Why something failed, in one line, whoever raised it."""
    return str(error) if isinstance(error, OURS) else because(error)


def because(error: BaseException) -> str:
    """One line of an exception that somebody else's code raised."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
