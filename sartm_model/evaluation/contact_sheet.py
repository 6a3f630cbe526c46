"""A contact sheet and an animation: frames beside their predicted labels."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sartm_model.labels import LabelSpace
from sartm_model.modalities import MODALITIES

MARGIN = 16  # pixels around the sheet and under its title
GAP = 6  # pixels between pictures
TITLE, TEXT, SMALL = 22, 15, 13  # font sizes in pixels
PAPER, INK, FAINT = (250, 250, 248), (28, 28, 30), (105, 105, 110)
EMPTY = (225, 225, 222)
LINE = 22  # pixels a line of the legend and of a caption


@dataclass(frozen=True)
class Row:
    """One frame of a sheet.

    Attributes:
        caption: a line above the pictures.
        images: raw images by modality, None for one that is missing.
        labels: predicted ids, uint8 `[H, W]`, or None if there was no output.
        overlay: uint8 `[H, W, 3]`, or None.
        ground_truth: true ids, uint8 `[H, W]`, or None.
    """

    caption: str
    images: Mapping[str, np.ndarray | None]
    labels: np.ndarray | None
    overlay: np.ndarray | None
    ground_truth: np.ndarray | None = None


def contact_sheet(
    rows: Sequence[Row],
    label_space: LabelSpace,
    title: str,
    subtitle: str = '',
    *,
    cell_width: int = 320,
    with_ground_truth: bool | None = None,
) -> Image.Image:
    """Draw rows of images, labels, overlay and, if known, ground truth.

    Args:
        rows: at least one, all with the same modalities; every cell has the aspect ratio of the
            first picture there is.
        label_space: the names and colours of the ids.
        title: the first line.
        subtitle: a smaller line below it.
        cell_width: the width of one picture in pixels.
        with_ground_truth: whether there is a column of true labels; if None, there is one if a
            row has them.
    """
    if with_ground_truth is None:
        with_ground_truth = any(row.ground_truth is not None for row in rows)
    titles = {name: MODALITIES[name].title for name in rows[0].images}
    headings = [*titles.values(), 'labels', 'overlay', *['ground truth'] * with_ground_truth]
    cell = (cell_width, _cell_height(rows, cell_width))
    width = 2 * MARGIN + len(headings) * (cell_width + GAP) - GAP
    legend = _legend_lines(label_space, width - 2 * MARGIN)

    top = MARGIN + TITLE + 8 + (SMALL + 8 if subtitle else 0)
    row_height = LINE + cell[1] + GAP
    height = top + LINE + len(rows) * row_height + MARGIN // 2 + len(legend) * LINE + MARGIN
    sheet = Image.new('RGB', (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 4), title, INK, _font(TITLE))
    if subtitle:
        draw.text((MARGIN, MARGIN + TITLE + 6), subtitle, FAINT, _font(SMALL))
    lefts = [MARGIN + column * (cell_width + GAP) for column in range(len(headings))]
    for left, heading in zip(lefts, headings, strict=True):
        draw.text((left, top), heading, INK, _font(TEXT))

    palette = label_space.palette()
    y = top + LINE
    for row in rows:
        draw.text((MARGIN, y + 3), row.caption, FAINT, _font(SMALL))
        y += LINE
        shown = {
            **{title: _show(name, row.images[name]) for name, title in titles.items()},
            'labels': None if row.labels is None else palette[row.labels],
            'overlay': row.overlay,
            'ground truth': None if row.ground_truth is None else palette[row.ground_truth],
        }
        for left, heading in zip(lefts, headings, strict=True):
            of_ids = heading in ('labels', 'ground truth')
            sheet.paste(_scaled(shown[heading], cell, exact=of_ids), (left, y))
        y += cell[1] + GAP

    y += MARGIN // 2
    for line in legend:
        for x, name, color in line:
            draw.rectangle((x, y + 2, x + 14, y + 16), fill=color, outline=FAINT)
            draw.text((x + 21, y), name, INK, _font(TEXT))
        y += LINE
    return sheet


def png_bytes(image: Image.Image) -> bytes:
    """Encode a picture as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, 'PNG')
    return buffer.getvalue()


def webp_bytes(images: Iterable[Image.Image], period_s: float) -> bytes:
    """Encode pictures of one size as an endless animated WebP, one every `period_s` seconds."""
    first, *rest = images
    buffer = io.BytesIO()
    first.save(
        buffer,
        'WEBP',
        save_all=True,
        append_images=rest,
        duration=max(round(period_s * 1000), 1),
        loop=0,
        quality=75,
        method=2,
    )
    return buffer.getvalue()


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _cell_height(rows: Sequence[Row], width: int) -> int:
    for row in rows:
        for picture in (*row.images.values(), row.labels):
            if picture is not None:
                return max(round(width * picture.shape[0] / picture.shape[1]), 1)
    return width * 3 // 4


def _show(modality: str, image: np.ndarray | None) -> np.ndarray | None:
    return None if image is None else MODALITIES[modality].show(image)


def _scaled(picture: np.ndarray | None, cell: tuple[int, int], exact: bool = False) -> Image.Image:
    """Resize a picture to a cell; `exact` does not interpolate, for the colours of ids."""
    if picture is None:
        empty = Image.new('RGB', cell, EMPTY)
        ImageDraw.Draw(empty).text(
            (cell[0] // 2, cell[1] // 2), 'none', FAINT, _font(TEXT), anchor='mm'
        )
        return empty
    image = Image.fromarray(np.ascontiguousarray(picture))
    return image.resize(cell, Image.Resampling.NEAREST if exact else Image.Resampling.LANCZOS)


def _legend_lines(
    label_space: LabelSpace, width: int
) -> list[list[tuple[int, str, tuple[int, int, int]]]]:
    """Distribute the classes over lines of at most `width` pixels, as (x, name, colour)."""
    font = _font(TEXT)
    lines: list[list[tuple[int, str, tuple[int, int, int]]]] = [[]]
    x = MARGIN
    for name, color in zip(label_space.classes, label_space.colors, strict=True):
        readable = name.replace('_', ' ')
        step = 21 + round(font.getlength(readable)) + 24
        if lines[-1] and x + step - 24 > MARGIN + width:
            lines.append([])
            x = MARGIN
        lines[-1].append((x, readable, color))
        x += step
    return lines
