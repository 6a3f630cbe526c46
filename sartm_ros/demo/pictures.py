"""The demo's contact sheet and animation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sartm_model.evaluation.contact_sheet import Row, contact_sheet, png_bytes, webp_bytes
from sartm_model.labels import LabelSpace
from sartm_model.utils.files import write_file
from sartm_ros.bag.reading import RGB_TOPIC, BagPair, default_x_topic
from sartm_ros.demo.recorder import Recording
from sartm_ros.demo.results import results

SHEET_ROWS = 6
ANIMATED_FRAMES = 200  # the first ones of a longer sequence


def draw(
    out: Path,
    bag: Path,
    recorded: Path,
    recording: Recording,
    label_space: LabelSpace,
    summary: dict[str, Any],
) -> None:
    """Write `sheet.png`, of frames evenly spaced over the sequence, and `animation.webp` to `out`.

    Both show the first pass in which labels were received.
    """
    number = next(n for n, received in enumerate(recording.received_s) if received)
    received = recording.received_s[number]
    count = len(received)
    chosen = set(np.linspace(0, count - 1, min(SHEET_ROWS, count)).round().astype(int).tolist())
    x_modality = summary['x_modality']
    title = f'SARTM: {summary["sequence"]}'

    def rows() -> Iterator[Row]:
        for pair, row in results(bag, recorded, number, received, x_modality):
            caption = (
                f'frame {pair.index}   skew {pair.skew_ns / 1e6:+.1f} ms   '
                f'latency {latency_ms(pair, recording, number, x_modality):.0f} ms'
            )
            yield replace(row, caption=caption)

    shown = [row for position, row in enumerate(rows()) if position in chosen]
    sheet = contact_sheet(shown, label_space, title, _subtitle(summary))
    write_file(out / 'sheet.png', png_bytes(sheet))
    # All pictures of an animation have one size, so the column of true labels is in all or none.
    with_ground_truth = summary['frames_with_truth'] > 0
    pictures = (
        contact_sheet([row], label_space, title, with_ground_truth=with_ground_truth)
        for row in islice(rows(), ANIMATED_FRAMES)
    )
    stamps = sorted(received)
    period_s = (stamps[-1] - stamps[0]) / 1e9 / (count - 1) if count > 1 else 1.0
    write_file(out / 'animation.webp', webp_bytes(pictures, period_s))


def latency_ms(pair: BagPair, recording: Recording, number: int, x_modality: str) -> float:
    """Return the milliseconds from publishing the pair's later message to receiving its labels."""
    published_s = recording.published_s[number]
    sent_s = published_s[RGB_TOPIC, pair.stamp_ns]
    if pair.x is not None:
        sent_s = max(sent_s, published_s[default_x_topic(x_modality), pair.stamp_ns + pair.skew_ns])
    return 1e3 * (recording.received_s[number][pair.stamp_ns] - sent_s)


def _subtitle(summary: dict[str, Any]) -> str:
    dropped = sum(summary['dropped'].values())
    text = (
        f'{summary["pairs_in"]} pairs in, {summary["pairs_out"]} out, {dropped} dropped; '
        f'latency {summary["latency_ms"]["median"]:.0f} ms'
    )
    if summary['metrics'] is not None:
        text += f'; mIoU {summary["metrics"]["miou"]:.1f} %'
    return text
