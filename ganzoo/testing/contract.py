"""How a broken promise is told: what was expected, what was found, and where to read more."""

from __future__ import annotations

from types import TracebackType

from ..errors import DataError

GUIDE = "docs/writing-plugins.md"


class ContractError(AssertionError):
    """A broken promise: what was expected, what was found, and where to read more."""

    def __init__(self, expected: str, found: str, chapter: str) -> None:
        super().__init__(f"expected {expected}; found {found} (see {GUIDE}, {chapter})")


def require(holds: bool, expected: str, found: str, chapter: str) -> None:
    """Raise ContractError unless the promise holds."""
    if not holds:
        raise ContractError(expected, found, chapter)


def told(error: BaseException) -> str:
    """Return an error as one line: its type and the first line of what it says."""
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Blame:
    """Anybody's code runs inside: whatever it raises becomes a broken promise that says so."""

    def __init__(self, promise: str, chapter: str) -> None:
        self.promise = promise
        self.chapter = chapter

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Raise ContractError in place of an error of the plugin's."""
        ours = isinstance(error, ContractError | DataError | MemoryError)  # DataError: data that is not on this machine
        if isinstance(error, Exception | SystemExit) and not ours:
            raise ContractError(f"that this can be looked at: {self.promise}", told(error), self.chapter) from error
