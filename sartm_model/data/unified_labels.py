"""A label space that unifies those of several data sets, for one network that learns from all.

    name: street_and_room                 # optional; the name of the file if it is left out
    label_spaces: [deliver, mfnet, nyuv2, yard.yaml]
    synonyms:                             # name here: what the data sets call it
      car: [cars, vehicle]
      bicycle: [bike, two_wheeler]
      room_wall: [nyuv2.wall]             # of one of them alone

Its classes are those of all of them, each name once, in the order in which they are found. A class
has the same name here as there unless `synonyms` gives it another one. Each data set remains a view
of it: see `LabelSpace.views`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sartm_model.data.label_space_file import (
    Color,
    fill_colors,
    label_space_path,
    open_label_space,
    read_label_space,
    read_yaml,
)
from sartm_model.errors import SartmError, raise_faults
from sartm_model.labels import LabelSpace, View
from sartm_model.utils.text import format_names

KEYS = ('name', 'label_spaces', 'synonyms')


def open_run_label_space(name: str) -> LabelSpace:
    """Return the label space of a run: one that `open_label_space` opens, or a unified one.

    Raises:
        SartmError: as `open_label_space`, or the file unifies label spaces that do not go together.
    """
    path = label_space_path(name, Path())
    if path is None:
        return open_label_space(name)
    faults: list[SartmError] = []
    values = read_yaml(path, faults)
    if not isinstance(values, Mapping) or 'label_spaces' not in values:
        return open_label_space(name)
    if unknown := [key for key in values if key not in KEYS]:
        faults.append(SartmError(f'{path} has the key {unknown[0]!r}; expected {", ".join(KEYS)}'))
    names, synonyms = values['label_spaces'], values.get('synonyms') or {}
    if not isinstance(names, list) or not names:
        raise SartmError(f'{path} has label_spaces: {names!r}; expected a list such as [mfnet]')
    spaces = [read_label_space(str(space), path.parent, faults) for space in names]
    raise_faults(faults)
    return unify(str(values.get('name', path.stem)), spaces, synonyms, str(path))


def unify(
    name: str, spaces: Sequence[LabelSpace], synonyms: Mapping[str, Any], source: str = 'synonyms'
) -> LabelSpace:
    """Return the union of label spaces, of which each is a view.

    Its background is the one class that is background in any of them; None if none has one.

    Args:
        name: of the union.
        spaces: with different classes.
        synonyms: name in the union -> the names in the label spaces, each for all of them or, as
            'space.class', for one. A class that has its name in the union already needs no entry.
        source: for the error messages.

    Raises:
        SartmError: a name is of no class, or is given twice; two classes of one label space would
            become one, so that its own classes could not be told apart; or two backgrounds remain.
    """
    renamed = _parse_synonyms(synonyms, spaces, source)
    classes: dict[str, Color | None] = {}
    all_names = []
    for space in spaces:
        names = [renamed.get(f'{space.name}.{own}', renamed.get(own, own)) for own in space.classes]
        for own, unified in zip(space.classes, names, strict=True):
            if names.count(unified) > 1:
                both = [o for o, u in zip(space.classes, names, strict=True) if u == unified]
                raise SartmError(
                    f'{source} makes one class, {unified}, of {" and ".join(both)} of '
                    f'{space.name}; expected a name for each, as its results are given by class'
                )
            color = space.colors[space.classes.index(own)]
            classes.setdefault(unified, None if color in classes.values() else color)
        all_names.append(names)
    backgrounds = {
        names[space.background_id]
        for space, names in zip(spaces, all_names, strict=True)
        if space.background_id is not None
    }
    if len(backgrounds) > 1:
        raise SartmError(
            f'{source} leaves {format_names(sorted(backgrounds))} as background classes; expected '
            'one: give them one name in synonyms'
        )
    ids = {unified: id_ for id_, unified in enumerate(classes)}
    views = tuple(
        View(space, tuple(ids[unified] for unified in names))
        for space, names in zip(spaces, all_names, strict=True)
    )
    background_id = ids[backgrounds.pop()] if backgrounds else None
    return LabelSpace(name, tuple(ids), fill_colors(list(classes.values())), background_id, views)


def _parse_synonyms(synonyms: Any, spaces: Sequence[LabelSpace], source: str) -> dict[str, str]:
    """Return the name in the union of each class, or 'space.class', that has another one."""
    known = {own for space in spaces for own in space.classes}
    known |= {f'{space.name}.{own}' for space in spaces for own in space.classes}
    renamed: dict[str, str] = {}
    if not isinstance(synonyms, Mapping):
        raise SartmError(f'{source} has synonyms: {synonyms!r}; expected {{car: [cars, vehicle]}}')
    for unified, names in synonyms.items():
        for own in names if isinstance(names, list) else [names]:
            if own not in known:
                raise SartmError(
                    f'{source} has the synonym {own!r} of {unified!r}; expected a class of '
                    f'{", ".join(space.name for space in spaces)}, or space.class'
                )
            if own in renamed:
                raise SartmError(
                    f'{source} has the synonym {own!r} of {renamed[own]!r} and of {unified!r}; '
                    'expected it once'
                )
            renamed[own] = str(unified)
    return renamed
