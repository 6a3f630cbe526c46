"""Writes files and folders whole or not at all, and computes the SHA-256 of a file."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sartm_model.errors import SartmError


def write_file(path: Path, content: bytes | str) -> None:
    """Write `content` (text as UTF-8) to `path`, replacing what was there in one step.

    The bytes go to a hidden neighbour first, so that a reader never sees a part of them and an
    interrupted run leaves the old file. Of a link, the file is replaced that it leads to; what is
    no file, such as a pipe or `/dev/stdout`, is written to. Missing parent folders are made. An
    OSError names a file, also where the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f'.{target.name}.', dir=target.parent)
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(data)
        os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, target)
    except BaseException as error:
        Path(aside).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # such as of a full disk
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder of the name of `path`, aside, that becomes `path` when the block ends without error.

    Raises SartmError where `path` exists: nothing is ever overwritten.
    """
    if path.exists():
        raise SartmError(f'{path} exists already; remove it or choose another name')
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f'.{path.name}.', dir=path.parent))
    try:
        yield aside / path.name
        os.rename(aside / path.name, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal; the file is read in parts."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
