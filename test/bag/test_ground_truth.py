"""Ground truth of a bag from a folder by its list of stamps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from sartm_model.errors import SartmError
from sartm_ros.bag.ground_truth import (
    ground_truth_from_folder,
    ground_truth_from_topic,
    read_stamps,
)
from sartm_ros.bag.reading import BagPair

STAMP = 1_700_000_000_123_456_789


def pair(stamp_ns: int, index: int | None = 0, with_rgb: bool = True) -> BagPair:
    """Return a pair that was matched by arrival, at another time than the header's stamp."""
    sec, nanosec = divmod(stamp_ns, 10**9)
    header = SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec))
    rgb = SimpleNamespace(header=header) if with_rgb else None
    return BagPair(rgb, 'thermal', stamp_ns + 3, 0, 0, index, None)


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ('a', 'b', 'c'):
        cv2.imwrite(str(tmp_path / f'{name}.png'), np.full((2, 3), ord(name) - ord('a'), np.uint8))
    return tmp_path


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_a_list_goes_by_stamp_in_any_order_and_leaves_out(folder, encoding):
    lines = ['stamp_ns,file', f'{STAMP},c.png', '', f'{STAMP - 5},a.png']
    (folder / 'stamps.csv').write_text('\n'.join(lines), encoding=encoding)
    truth = ground_truth_from_folder(folder, classes=9, messages=77)
    first, second = truth(pair(STAMP)), truth(pair(STAMP - 5, index=4))
    assert first is not None
    assert second is not None
    assert first.tolist() == [[2, 2, 2], [2, 2, 2]]
    assert second.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert truth(pair(STAMP + 1)) is None  # to the nanosecond
    assert truth(pair(STAMP, index=None, with_rgb=False)) is None  # labels are of the RGB image


def test_without_a_list_they_go_by_order(folder):
    truth = ground_truth_from_folder(folder, classes=9, messages=3)
    third = truth(pair(STAMP, index=2))
    assert third is not None
    assert third[0, 0] == 2
    assert truth(pair(STAMP, index=None, with_rgb=False)) is None
    with pytest.raises(SartmError, match=r'3 label images but the bag has 4.*stamps\.csv'):
        ground_truth_from_folder(folder, classes=9, messages=4)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'stamp_ns,file'),
        (f'{STAMP},a.png', 'stamp_ns,file'),
        (f'stamp_ns,file\n{STAMP}', 'line 2'),
        (f'stamp_ns,file\n{STAMP},a.png\n1.5e18,b.png', 'line 3'),
        (f'stamp_ns,file\n{STAMP},a.png\n{STAMP},b.png', 'second time'),
        (f'stamp_ns,file\n{STAMP},d.png', r'line 2: there is no file .*d\.png'),
    ],
)
def test_faulty_lists(folder, text, message):
    (folder / 'stamps.csv').write_text(text)
    with pytest.raises(SartmError, match=message):
        read_stamps(folder / 'stamps.csv')


def test_ids_in_jpeg_are_refused():
    class Jpeg:
        format = 'mono8; jpeg compressed '

    with pytest.raises(SartmError, match='jpeg'):
        ground_truth_from_topic(BagPair('rgb', 'thermal', STAMP, 0, 0, 0, Jpeg()))
