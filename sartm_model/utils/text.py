"""Short texts for messages: many names, the first line of an error, how classes differ."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sartm_model.labels import LabelSpace


def format_names(names: Iterable[object], at_most: int = 3) -> str:
    """Join names for a message: at most so many of them, then how many more there are."""
    texts = [str(name) for name in names]
    more = f' and {len(texts) - at_most} more' if len(texts) > at_most else ''
    return ', '.join(texts[:at_most]) + more


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def compare_classes(former: LabelSpace, latter: LabelSpace) -> str:
    """Return how the classes of two label spaces differ.

    If the former has a view of the name of the latter, that is compared.
    """
    former = next((view.space for view in former.views if view.space.name == latter.name), former)
    only_former = [name for name in former.classes if name not in latter.classes]
    only_latter = [name for name in latter.classes if name not in former.classes]
    sides = (('former', only_former), ('latter', only_latter))
    texts = [f'only the {side} has {format_names(names)}' for side, names in sides if names]
    return ', '.join(texts) or 'they are in another order'
