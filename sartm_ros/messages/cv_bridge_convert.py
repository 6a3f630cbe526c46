"""Converts images by ROS's `cv_bridge`, after a child process has shown that it works here.

A `cv_bridge` that was built for another major release of NumPy ends the process that uses it with a
segmentation fault. That is usual where pip has installed NumPy 2 beside ROS's packages.
"""

from __future__ import annotations

import functools
import importlib.util
import signal
import subprocess
import sys
from typing import Any

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.utils.text import first_line

TIMEOUT_S = 20.0

# The child looks for modules where this process does.
_PROBE = """
import sys
sys.path[:] = sys.argv[1:]
from types import SimpleNamespace
from cv_bridge import CvBridge
image = SimpleNamespace(
    height=2, width=2, encoding='rgb8', is_bigendian=0, step=6, data=bytes(12), header=None
)
CvBridge().imgmsg_to_cv2(image, 'bgr8')
"""


def convert(msg: Any, desired: str) -> np.ndarray:
    """Convert an image message by `cv_bridge`.

    Args:
        msg: has the fields of `sensor_msgs/Image`.
        desired: the encoding of the result, or 'passthrough'.

    Raises:
        SartmError: `cv_bridge` is missing, does not work here, or cannot convert this image. The
            text says which, and is the end of a sentence.
    """
    fault = find_fault()
    if fault:
        raise SartmError(fault)
    from cv_bridge import CvBridge

    try:
        return CvBridge().imgmsg_to_cv2(msg, desired_encoding=desired)
    except Exception as error:  # its C++ part raises several kinds
        raise SartmError(f'cv_bridge was tried and failed: {first_line(error)}') from error


@functools.cache
def find_fault() -> str:
    """Return why `cv_bridge` cannot be used, or '' if it can; a child process tries it once.

    The first call may take up to `TIMEOUT_S`, so it is not for the thread of the executor.
    """
    if importlib.util.find_spec('cv_bridge') is None:
        return 'cv_bridge, which reads others, is not installed'
    try:
        result = subprocess.run(
            [sys.executable, '-c', _PROBE, *sys.path],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors='replace',
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f'cv_bridge was tried and gave nothing within {TIMEOUT_S:g} s'
    except OSError as error:
        return f'cv_bridge could not be tried: {error}'
    if result.returncode < 0:
        return (
            f'cv_bridge was tried and ended its process by {_signal_name(-result.returncode)}: '
            f'it was built for another NumPy than {np.__version__}? Install the NumPy that your '
            'ROS was built with (numpy<2)'
        )
    if result.returncode > 0:
        reason = (result.stderr.strip().splitlines() or ['no reason given'])[-1]
        return f'cv_bridge was tried and failed: {reason}'
    return ''


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f'signal {number}'
