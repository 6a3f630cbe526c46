"""Short texts for messages: names of many things, the first line of an error."""

from __future__ import annotations

from collections.abc import Iterable


def format_names(names: Iterable[object], at_most: int = 3) -> str:
    """Join names for a message: at most so many of them, then how many more there are."""
    texts = [str(name) for name in names]
    more = f' and {len(texts) - at_most} more' if len(texts) > at_most else ''
    return ', '.join(texts[:at_most]) + more


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
