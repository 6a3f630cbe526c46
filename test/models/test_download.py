"""`sartm download sam2`, with the hub replaced by functions."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from sartm_model.cli.main import main
from sartm_model.errors import SartmError
from sartm_model.models import sam2_download as download
from sartm_model.models.sam2_download import SAM2_FILES, download_sam2

CONTENT = b'as good as weights' * 100_000


@pytest.fixture
def hub(monkeypatch):
    """Replace the hub by one that has `CONTENT` under every name; return the list of calls."""
    calls = []

    def hf_hub_download(repo_id, filename, *, revision, local_dir):
        calls.append((repo_id, filename, revision))
        (Path(local_dir) / '.cache').mkdir()  # as the real one does
        path = Path(local_dir) / filename
        path.write_bytes(CONTENT)
        return str(path)

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', hf_hub_download)
    return calls


@pytest.fixture
def known(monkeypatch):
    """Make `CONTENT` the official file of SAM2.1 tiny."""
    file = SAM2_FILES['sam2.1', 'tiny']._replace(sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(download.SAM2_FILES, ('sam2.1', 'tiny'), file)


def test_every_size_is_pinned():
    sizes = ('tiny', 'small', 'base_plus', 'large')
    assert set(SAM2_FILES) == {(v, s) for v in ('sam2', 'sam2.1') for s in sizes}
    assert len({file.sha256 for file in SAM2_FILES.values()}) == 8
    for (version, size), file in SAM2_FILES.items():
        assert re.fullmatch(r'[0-9a-f]{64}', file.sha256)
        # Of one file no commit was found in a public source.
        branch = 'main' if (version, size) == ('sam2', 'base_plus') else None
        assert file.revision == branch or re.fullmatch(r'[0-9a-f]{40}', file.revision)
    large = SAM2_FILES['sam2.1', 'base_plus']
    assert large[:2] == ('facebook/sam2.1-hiera-base-plus', 'sam2.1_hiera_base_plus.pt')


def test_the_right_file_is_kept_and_fetched_once(tmp_path, capsys, hub, known):
    out = tmp_path / 'new' / 'weights'
    for _ in range(2):
        assert main(['download', 'sam2', '--size', 'tiny', '--out', str(out)]) == 0
    file = SAM2_FILES['sam2.1', 'tiny']
    assert hub == [(file.repo, file.name, file.revision)]
    assert [path.name for path in out.iterdir()] == ['sam2.1_hiera_tiny.pt']
    assert (out / file.name).read_bytes() == CONTENT
    printed = capsys.readouterr().out
    assert file.sha256 in printed
    assert f'model.size=tiny sam2_weights={out / file.name}' in printed


def test_another_file_is_refused_and_not_kept(tmp_path, hub):
    out = tmp_path / 'weights'
    with pytest.raises(SartmError, match=r'large\.pt is not the official file; not kept \(sha256'):
        download_sam2('large', out)
    assert not out.exists()
    out.mkdir()
    with pytest.raises(SartmError, match='not the official file'):
        download_sam2('large', out, 'sam2')
    assert not list(out.iterdir())
    assert [name for _, name, _ in hub] == ['sam2.1_hiera_large.pt', 'sam2_hiera_large.pt']


def test_a_wrong_file_that_is_there_is_left_alone(tmp_path, hub):
    there = tmp_path / 'sam2.1_hiera_small.pt'
    there.write_bytes(b'half of it')
    with pytest.raises(SartmError, match=r'small\.pt is not the official file; remove it'):
        download_sam2('small', tmp_path)
    assert there.read_bytes() == b'half of it'
    assert not hub


@pytest.mark.parametrize(
    'error', [LocalEntryNotFoundError('no connection\nat all'), RuntimeError(), OSError('disk')]
)
def test_without_a_network_one_line_says_what_to_do(tmp_path, capsys, monkeypatch, error):
    def hf_hub_download(repo_id, filename, *, local_dir, **_):
        (Path(local_dir) / f'{filename}.incomplete').write_bytes(b'some')
        raise error

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', hf_hub_download)
    out = tmp_path / 'weights'
    assert main(['download', 'sam2', '--size', 'tiny', '--out', str(out)]) == 2
    printed, line = capsys.readouterr()
    assert not printed
    assert len(line.splitlines()) == 1
    assert line.startswith('sartm download: error: sam2.1_hiera_tiny.pt of facebook/sam2.1-hiera-')
    assert SAM2_FILES['sam2.1', 'tiny'].sha256 in line
    assert 'give its path as sam2_weights' in line
    assert '://' not in line
    assert not out.exists()


def test_sizes_that_are_not_published(tmp_path):
    with pytest.raises(SartmError, match="no weights of size 'nano'"):
        download_sam2('nano', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
