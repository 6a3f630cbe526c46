"""The Fast DDS profile for images, `config/fastdds_images.xml`, in processes of this package."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from sartm_model.errors import SartmError

MIDDLEWARE_VARIABLE = 'RMW_IMPLEMENTATION'
"""Names the middleware of ROS; by default it is Fast DDS."""

FAST_DDS = 'rmw_fastrtps'
"""How the names of Fast DDS begin there."""

PROFILE_VARIABLE = 'FASTRTPS_DEFAULT_PROFILES_FILE'
"""Names the XML file from which Fast DDS takes its settings."""

BUILTIN_VARIABLE = 'FASTDDS_BUILTIN_TRANSPORTS'
"""Chooses transports of Fast DDS without a file, such as DEFAULT or LARGE_DATA."""


def image_profile(enabled: bool = True) -> dict[str, str]:
    """Return the environment variables that turn the profile for images on or off.

    They are empty where the user has set a profile or transports, because those are kept, and
    where the profile is not installed, which is logged.
    """
    if PROFILE_VARIABLE in os.environ or BUILTIN_VARIABLE in os.environ:
        return {}
    if not enabled:
        return {BUILTIN_VARIABLE: 'DEFAULT'}
    try:
        return {PROFILE_VARIABLE: str(find_config('fastdds_images.xml'))}
    except SartmError as error:
        logging.getLogger(__name__).warning('%s; best-effort images may be lost', error)
        return {}


def use_image_profile() -> None:
    """Give Fast DDS enough shared memory for images, in this process and its children.

    Fast DDS reads the profile when the first context of rclpy is created, so this must be called
    before.
    """
    os.environ.update(image_profile())


def find_config(name: str) -> Path:
    """Return a file of `config/`, in the checkout or where the package is installed.

    Raises SartmError if there is none.
    """
    here = Path(__file__).resolve()
    # The prefix of an installation is the sixth folder above; a checkout may have fewer.
    prefixes = [*here.parents[5:6], Path(sys.prefix), *workspaces()]
    folders = [here.parents[2], *(prefix / 'share' / 'sartm_ros' for prefix in prefixes)]
    for folder in folders:
        if (folder / 'config' / name).is_file():
            return folder / 'config' / name
    raise SartmError(f'config/{name} is not installed; run make setup, or source the workspace')


def workspaces() -> list[Path]:
    """Return the prefixes of the ROS workspaces that are sourced."""
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    return [Path(prefix) for prefix in prefixes if prefix]
