"""Tells which version of a package is installed."""

from __future__ import annotations

from importlib import metadata


def version_of(package: str) -> str:
    """Return the installed version of a package, or 'not installed'."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return 'not installed'
