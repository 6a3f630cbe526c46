"""How long a network takes to start, for the report of a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from sartm_model.errors import SartmError
from sartm_model.inference.compiled import CACHE_VARIABLE


def start_s(
    checkpoint: str | Path, engine: str, height: int, width: int, device: str, cache: Path
) -> float:
    """Return the seconds from a checkpoint to the first labels, in a process of its own.

    Python's imports do not count.

    Args:
        checkpoint, height, width, device: see `benchmark`.
        engine: 'auto' or 'compile'.
        cache: the folder of what 'compile' keeps for the next start.

    Raises:
        SartmError: the process fails, or uses another engine than 'compile' in its place.
    """
    command = [sys.executable, '-m', 'sartm_model.cli', 'benchmark', '--iterations', '1']
    command += ['--checkpoint', str(checkpoint), '--engine', engine, '--device', device]
    command += ['--height', str(height), '--width', str(width)]
    environment = {**os.environ, CACHE_VARIABLE: str(cache)}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SartmError(f'exit status {process.returncode}: {_last_line(process.stderr)}')
    found = json.loads(process.stdout)
    if engine == 'compile' and found['engine'] != engine:
        raise SartmError(_last_line(process.stderr))
    return float(found['start_s'])


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [''])[-1]
