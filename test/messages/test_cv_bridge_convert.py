"""Encodings that are left to `cv_bridge`, with packages of that name that behave in various ways.

The real package comes with ROS and is not installed where the tests run, so what it does to the
process that imports it is imitated.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from sartm_model.errors import SartmError
from sartm_ros.messages import cv_bridge_convert
from sartm_ros.messages.images import to_rgb, to_thermal

WORKS = """
import numpy as np

class CvBridge:
    def imgmsg_to_cv2(self, msg, desired_encoding):
        if msg.encoding == 'broken':
            raise RuntimeError('[broken] is not a colour format.\\nSecond line')
        channels = {'rgb8': 3, 'bgr8': 3, 'passthrough': 1}[desired_encoding]
        dtype = {'64FC1': np.float64, '32SC1': np.int32}.get(msg.encoding, np.uint8)
        image = np.full((msg.height, msg.width, channels), 20, dtype)
        return image[..., 0] if channels == 1 and msg.encoding != 'deep' else image
"""
CRASHES = """
import os, signal

class CvBridge:
    def imgmsg_to_cv2(self, msg, desired_encoding):
        os.kill(os.getpid(), signal.SIGSEGV)
"""
HANGS = """
import time

class CvBridge:
    def imgmsg_to_cv2(self, msg, desired_encoding):
        time.sleep(1000)
"""


def message(encoding: str) -> SimpleNamespace:
    return SimpleNamespace(
        header=None, height=4, width=6, encoding=encoding, step=18, is_bigendian=0, data=bytes(72)
    )


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a `cv_bridge` with the code that it is given."""

    def install_code(code: str) -> None:
        (tmp_path / 'cv_bridge.py').write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path))

    sys.modules.pop('cv_bridge', None)
    cv_bridge_convert.find_fault.cache_clear()
    yield install_code
    sys.modules.pop('cv_bridge', None)
    cv_bridge_convert.find_fault.cache_clear()


def refusal(encoding: str = 'rgb7', convert=to_rgb) -> str:
    with pytest.raises(SartmError) as failure:
        convert(message(encoding))
    text = str(failure.value)
    assert text.startswith(f"image encoding '{encoding}' is not supported; expected one of rgb8, ")
    assert '\n' not in text
    return text


@pytest.mark.parametrize('encoding', ['', 'rgb7', 'h264', '64FC1', 'MONO8'])
def test_a_refusal_names_what_is_read_and_that_cv_bridge_is_missing(install, encoding):
    if importlib.util.find_spec('cv_bridge') is not None:
        pytest.skip('cv_bridge is installed')
    texts = {convert: refusal(encoding, convert) for convert in (to_rgb, to_thermal)}
    for text in texts.values():
        assert text.endswith('; cv_bridge, which reads others, is not installed')
        assert re.search(r'\bnv12, nv21\b', text)
    assert '32FC1' in texts[to_thermal]
    assert '32FC1' not in texts[to_rgb]


def test_a_cv_bridge_that_works_converts(install):
    install(WORKS)
    np.testing.assert_array_equal(to_rgb(message('rgb7')), np.full((4, 6, 3), 20, np.uint8))
    np.testing.assert_array_equal(to_thermal(message('y10')), np.full((4, 6), 20, np.uint8))
    # Temperatures of 64 bits become counts as those of 32 bits do.
    np.testing.assert_array_equal(to_thermal(message('64FC1')), np.full((4, 6), 29315, np.uint16))


def test_what_a_cv_bridge_cannot_convert_is_said(install):
    install(WORKS)
    text = refusal('broken')
    assert text.endswith('; cv_bridge was tried and failed: [broken] is not a colour format.')
    assert refusal('deep', to_thermal).endswith('; cv_bridge gives an image of (4, 6, 1)')
    assert refusal('32SC1', to_thermal).endswith('; cv_bridge gives int32')


def test_a_cv_bridge_that_crashes_does_so_in_a_child_process(install):
    install(CRASHES)
    text = refusal()
    assert 'cv_bridge was tried and ended its process by SIGSEGV' in text
    assert f'another NumPy than {np.__version__}' in text
    assert 'cv_bridge' not in sys.modules


def test_a_cv_bridge_that_cannot_be_imported_is_named(install):
    install("raise ImportError('numpy.core.multiarray failed to import')")
    text = refusal()
    assert text.endswith(
        'cv_bridge was tried and failed: ImportError: numpy.core.multiarray failed to import'
    )


def test_a_cv_bridge_that_hangs_is_given_up(install, monkeypatch):
    monkeypatch.setattr(cv_bridge_convert, 'TIMEOUT_S', 0.5)
    install(HANGS)
    assert refusal().endswith('cv_bridge was tried and gave nothing within 0.5 s')


def test_it_is_tried_once(install, monkeypatch):
    install(CRASHES)
    first = refusal()
    monkeypatch.setattr(cv_bridge_convert.subprocess, 'run', None)
    assert refusal() == first
