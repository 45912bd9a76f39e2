"""The ways in which this project says no."""

from pathlib import Path

STATUS_USER_ERROR = 2  # what a process that met a UserError exits with


class UserError(Exception):
    """A mistake that the user can mend: shown as one message, without a traceback, status 2.

    The message says what was expected, what was received, where, and what to do.
    """


class PhotoError(Exception):
    """A photo that cannot be opened.

    Args:
        path: The file, as it was asked for.
        reason: Why, in words that fit behind the path ("not an image", "truncated").
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple:
        """Exceptions are pickled by their message alone otherwise; it crosses processes."""
        return PhotoError, (self.path, self.reason)


class JobFailedError(Exception):
    """A job of a sweep failed in a process that another launcher than ours has started.

    Args:
        reason: Why, in one line.
        is_mistake: Whether that was the user's mistake.
    """

    def __init__(self, reason: str, is_mistake: bool) -> None:
        super().__init__(reason, is_mistake)  # both cross processes, and nothing else has to
        self.reason = reason
        self.is_mistake = is_mistake

    def __str__(self) -> str:
        return self.reason
