"""Downloads SAM2's official weights with `huggingface_hub`, for `sartm download sam2`.

A file is accepted if its SHA-256 is right. The checksums are those that micro-sam pins for Meta's
own file server (`micro_sam/v2/util.py`); those of sam2 tiny and small and of sam2.1 small were also
compared with the pages of the official model repositories. The revisions are commits of these
repositories, except for `sam2-hiera-base-plus`, for which no public source names one.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from sartm_model.errors import SartmError
from sartm_model.utils.files import sha256_of_file
from sartm_model.utils.hub import download_from_hub


class Sam2File(NamedTuple):
    """An official file.

    Attributes:
        repo: model repository.
        name: name of the file.
        revision: commit or branch.
        sha256: checksum, hexadecimal.
    """

    repo: str
    name: str
    revision: str
    sha256: str


_REVISIONS = {
    ('sam2.1', 'tiny'): 'de431c4043854a71d8101e17995dfe596bf101a5',
    ('sam2.1', 'small'): 'ee5bba1d82bb8749febdf90f45e84b687142ba03',
    ('sam2.1', 'base_plus'): 'b7320756a13354e7530a63935656d35b2f91a290',
    ('sam2.1', 'large'): '665f8e2ad61cf5f53d65644ff27c8ee525124610',
    ('sam2', 'tiny'): 'a8e4b467be69abf1c58fb327abc2935aaa890d1e',
    ('sam2', 'small'): 'e080ada8afd19df5e165abe71b006edc7f4c3d4e',
    ('sam2', 'base_plus'): 'main',
    ('sam2', 'large'): 'e6a8e8809b8f1bfa2238b6d080f3d05cc76bd251',
}
_SHA256 = {
    ('sam2.1', 'tiny'): '7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69',
    ('sam2.1', 'small'): '6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38',
    ('sam2.1', 'base_plus'): 'a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5',
    ('sam2.1', 'large'): '2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318',
    ('sam2', 'tiny'): '65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125',
    ('sam2', 'small'): '95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3',
    ('sam2', 'base_plus'): 'd0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071',
    ('sam2', 'large'): '7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b',
}
SAM2_FILES = {
    (version, size): Sam2File(
        f'facebook/{version}-hiera-{size.replace("_", "-")}',
        f'{version}_hiera_{size}.pt',
        revision,
        _SHA256[version, size],
    )
    for (version, size), revision in _REVISIONS.items()
}


def download_sam2(size: str, out: Path, version: str = 'sam2.1') -> Path:
    """Download an official `.pt` into a folder, unless it is there, and check its SHA-256.

    Args:
        size: tiny, small, base_plus or large.
        out: the folder; it is created if needed. A failed download leaves nothing in it.
        version: 'sam2.1' or 'sam2'.

    Returns:
        The path of the file, for `sam2_weights` of a training configuration.

    Raises:
        SartmError: no such file is published, it cannot be downloaded, or its checksum is wrong.
    """
    if (version, size) not in SAM2_FILES:
        raise SartmError(
            f'{version} has no weights of size {size!r}; expected sam2.1 or sam2, and tiny, small, '
            'base_plus or large'
        )
    file = SAM2_FILES[version, size]
    target = out / file.name
    if target.exists():
        _check(target, file, f'{target} is not the official file; remove it and try again')
        return target
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f'.{file.name}.', dir=out) as temporary:
            downloaded = _download(file, Path(temporary))
            _check(
                downloaded, file, f'the download of {file.name} is not the official file; not kept'
            )
            os.replace(downloaded, target)
    except BaseException:
        if is_new:
            out.rmdir()
        raise
    return target


def _download(file: Sam2File, folder: Path) -> Path:
    advice = (
        f'download {file.name} of the model repository {file.repo} on another machine, '
        f'compare its sha256 ({file.sha256}), copy it here and give its path as sam2_weights'
    )
    return download_from_hub(file.repo, file.name, advice, revision=file.revision, local_dir=folder)


def _check(path: Path, file: Sam2File, fault: str) -> None:
    """Raise SartmError that begins with `fault` unless the file has the right SHA-256."""
    found = sha256_of_file(path)
    if found != file.sha256:
        raise SartmError(f'{fault} (sha256 {found}, expected {file.sha256})')
