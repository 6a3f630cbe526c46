"""Files are written whole, to where their name leads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sartm_model.utils.files import write_file


def test_a_link_keeps_leading_to_the_file(tmp_path):
    real, link = tmp_path / 'runs/1.json', tmp_path / 'latest.json'
    link.symlink_to('runs/1.json')
    for content in ('first', 'second'):  # the first time the link leads to nothing
        write_file(link, content)
        assert link.is_symlink()
        assert real.read_text() == content
    assert sorted(path.name for path in tmp_path.rglob('*')) == ['1.json', 'latest.json', 'runs']


def test_a_pipe_is_written_to(tmp_path):
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_file(pipe, 'text')
    reader.join(30)
    assert read == ['text']
    assert pipe.is_fifo()


def test_standard_output_is_written_to():
    code = (
        'from pathlib import Path; from sartm_model.utils.files import write_file;'
        "write_file(Path('/dev/fd/1'), 'text')"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout == 'text'


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        write_file(tmp_path, 'text')
    assert not list(Path(tmp_path).iterdir())
