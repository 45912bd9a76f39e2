"""The two ways in which a configuration's check fails."""

from typing import Any


def expect(condition: bool, expected: str, **received: Any) -> None:
    """Raises ValueError with what was expected and received, unless `condition` holds."""
    if not condition:
        shown = ", ".join(f"{name}={value}" for name, value in received.items())
        raise ValueError(f"Expected {expected}. Received: {shown}")


def expect_one_of(choices: tuple[str, ...], **received: Any) -> None:
    """Raises ValueError unless the one value received is among `choices`."""
    ((name, value),) = received.items()
    expect(value in choices, f"{name} to be one of {', '.join(choices)}", **received)


def expect_image_size(image_size: int) -> None:
    """Raises ValueError unless a photo can have this side, in pixels."""
    expect(1 <= image_size <= 4096, "image_size to be from 1 to 4096 pixels", image_size=image_size)
