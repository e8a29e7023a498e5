"""Every error that a user can cause, each with its exit code; the message is one sentence that names culprit and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GanzooError(Exception):
    """Base of all errors that are reported without a traceback."""

    exit_code = 1


class UsageError(GanzooError):
    """A word on the command line or in the environment that makes no sense."""

    exit_code = 2


class RunFailed(GanzooError):
    """The training itself went wrong: a loss that is not finite."""

    exit_code = 1


class RecipeError(GanzooError):
    """A recipe, an override or a composition that cannot be run."""

    exit_code = 3


class DataError(GanzooError):
    """Data that is missing, empty, unreadable or not what the recipe expects."""

    exit_code = 3


class PluginError(GanzooError):
    """A plugin that is unknown, ambiguous, broken, or was given wrong options."""

    exit_code = 4


class CheckpointError(GanzooError):
    """A checkpoint that is damaged, foreign or does not fit its recipe."""

    exit_code = 5


class RunInUse(GanzooError):
    """Another process is training in this run folder."""

    exit_code = 6


class ResourceError(GanzooError):
    """Memory or disk ran out."""

    exit_code = 7


class RankLost(GanzooError):
    """Another process of the launch died or stopped answering."""

    exit_code = 8


class PeerFailed(RankLost):
    """Another process of the launch failed at what all are doing, and says why itself."""


class Interrupted(GanzooError):
    """A signal stopped the run at the end of a round, after its checkpoint was written."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type[Interrupted], tuple[str, int]]:
        """Let another process raise it here."""
        return Interrupted, (str(self), self.exit_code)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the closest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
