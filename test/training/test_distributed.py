"""Two real processes on the CPU (gloo): one run, one stop, one set of prototypes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

from sartm_model.models import checkpoint as checkpoints
from sartm_model.training.run import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_available(), reason='this torch is built without distributed'),
]

LAUNCH = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2']

# Sends SIGTERM to the second process only, in the middle of the first step.
INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from sartm_model.training.module import SegmentationTraining
from sartm_model.training.run import train

original = SegmentationTraining.training_step

def training_step(self, batch, index):
    if os.environ['RANK'] == '1' and self.global_step == 0:
        os.kill(os.getpid(), signal.SIGTERM)
    return original(self, batch, index)

SegmentationTraining.training_step = training_step
train(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def launch(*arguments):
    """Run two processes; returns what they printed."""
    done = subprocess.run(
        [*LAUNCH, *map(str, arguments)],
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_two_processes_train_as_one_with_two_batches_a_step(tmp_path, write_config):
    """Both ways use the same samples; gradients are averaged over processes or over batches.

    The prototypes are left out: two batches update them one after another, two processes at once.
    Early stopping needs the mIoU in every process.
    """
    settings = {'steps': 2, 'val_every': 1, 'patience': 5, 'loss': {'prototype': 0.0}}
    one = write_config(**settings, optim={'lr': 1e-3, 'accumulate': 2})
    expected = checkpoints.load(train(one, tmp_path / 'one')).state
    two = write_config(**settings, optim={'lr': 1e-3}, devices=2)
    run = ('-m', 'sartm_model.cli', 'train', '--config', two, '--out', tmp_path / 'two')
    printed = launch(*run, 'data.val.frames=3')
    found = checkpoints.load(tmp_path / 'two' / 'last.safetensors').state
    # The batch norms of each process have followed its own batches; the rest is equal, up to a
    # hundredth of a step of 1e-3: Adam divides by the gradient, also where that is mostly rounding.
    for name in expected:
        if 'running_' not in name and 'num_batches' not in name:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
    assert printed.count('val mIoU') == 2  # by the first process, after each step


def test_two_processes_train_one_modality_alone(tmp_path, write_config):
    """What belongs to the other modality has no gradient, for which DDP would wait forever."""
    config = write_config(devices=2, steps=2, val_every=2)
    run = ('-m', 'sartm_model.cli', 'train', '--config', config, '--out', tmp_path / 'run')
    launch(*run, 'data.modality=thermal')
    state = checkpoints.load(tmp_path / 'run' / 'last.safetensors').state
    learned = [name for name, value in state.items() if 'lora_B' in name and value.any()]
    assert learned
    assert all('.thermal.' in name for name in learned)


def test_a_signal_to_one_process_stops_both_with_the_state_saved(tmp_path, write_config):
    script = tmp_path / 'interrupted.py'
    script.write_text(INTERRUPTED)
    config = write_config(devices=2, val_every=2)
    printed = launch(script, config, tmp_path / 'run')
    assert printed.count('stopped by SIGTERM') == 1
    state = torch.load(tmp_path / 'run' / 'last.ckpt', weights_only=True)
    assert state['global_step'] == 1
    assert (tmp_path / 'run' / 'last.safetensors').is_file()
