"""The frames that the verbs are run on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import HEIGHT, NAMES, WIDTH


@pytest.fixture
def folders(tmp_path) -> Path:
    """A folder with rgb/, thermal/ and labels/ of three frames, and an MFNet split of them."""
    rng = np.random.default_rng(3)
    for part in ('rgb', 'thermal', 'labels'):
        (tmp_path / part).mkdir()
    for name in NAMES:
        images = {
            'rgb': rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8),
            'thermal': rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8),
            'labels': rng.integers(0, 9, (HEIGHT, WIDTH), dtype=np.uint8),
        }
        for part, image in images.items():
            assert cv2.imwrite(str(tmp_path / part / f'{name}.png'), image)
    (tmp_path / 'val.txt').write_text('\n'.join(NAMES) + '\n')
    return tmp_path
