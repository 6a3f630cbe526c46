"""Runs the `sartm` command in the process of the tests, and reads the images that it writes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from sartm_model.cli.main import main

NAMES = ('00001D', '00002N', '00003N')
"""The frames of the fixture `folders`: one by day, two by night."""

HEIGHT, WIDTH = 72, 100  # neither is divisible by 32


def run(*arguments: object) -> int:
    """Run the command and return its exit status."""
    return main([str(argument) for argument in arguments])


def expect_error(capsys, out: Path | None, *arguments: object) -> str:
    """Run the command and return the error line.

    It must exit with status 2, print one line on stderr, and not create `out`.
    """
    capsys.readouterr()
    try:
        status = run(*arguments)
    except SystemExit as usage_error:
        status = usage_error.code
    printed, line = capsys.readouterr()
    assert status == 2
    assert not printed
    assert len(line.splitlines()) == 1, line
    assert ': error: ' in line
    assert line.startswith('sartm')
    assert out is None or not out.exists()
    return line


def read(path: Path) -> np.ndarray:
    """Read an image as it is stored; colours are BGR."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image
