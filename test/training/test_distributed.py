"""Two real processes on the CPU (gloo): one run, one stop, one set of prototypes."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml

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
try:
    train(Path(sys.argv[1]), Path(sys.argv[2]))
except SystemExit as error:
    print(f"exit status {error.code}")
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
    assert printed.count('exit status 143') == 1
    state = torch.load(tmp_path / 'run' / 'last.ckpt', weights_only=True)
    assert state['global_step'] == 1
    assert (tmp_path / 'run' / 'last.safetensors').is_file()


def test_two_processes_train_one_network_on_several_pairs(tmp_path):
    """A batch has the weights of one sensor alone, so the others have no gradient in that step."""
    pytest.importorskip('transformers', reason='needs transformers')
    root = tmp_path / 'frames'
    rng = np.random.default_rng(0)
    splits = {'train': ['0', '1', '2', '3']}
    sources = []
    for folder in ('rgb', 'depth', 'event', 'labels'):
        (root / folder).mkdir(parents=True)
        for stem in splits['train']:
            shape = (32, 64) if folder in ('depth', 'labels') else (32, 64, 3)
            image = rng.integers(0, 2, shape).astype(np.uint8)
            image = image.astype(np.uint16) + 4000 if folder == 'depth' else image
            cv2.imwrite(str(root / folder / f'{stem}.png'), image)
    for sensor in ('depth', 'event'):
        declaration = {
            'label_space': {'name': 'yard', 'names': ['a', 'b']},
            'images': {'rgb': 'rgb/{stem}.png', sensor: f'{sensor}/{{stem}}.png'},
            'labels': 'labels/{stem}.png',
            'splits': splits,
        }
        path = root / f'{sensor}.yaml'
        path.write_text(yaml.safe_dump(declaration))
        source = {'dataset': 'folder', 'root': str(path), 'modalities': ['rgb', sensor]}
        sources.append({**source, 'split': 'train'})
    model = {'name': 'segrgbx', 'size': 'b0', 'modalities': ['rgb', 'depth', 'event']}
    data = {'train': sources, 'val': {**sources[0], 'frames': 2}, 'batch_size': 1, 'workers': 0}
    config = {
        'model': model,
        'data': {**data, 'crop_height': 32, 'crop_width': 64},
        'steps': 6,
        'val_every': 6,
        'devices': 2,
        'device': 'cpu',
        'seed': 1,
    }
    (tmp_path / 'train.yaml').write_text(yaml.safe_dump(config))
    run = ('--config', tmp_path / 'train.yaml', '--out', tmp_path / 'run')
    launch('-m', 'sartm_model.cli', 'train', *run)
    trained = checkpoints.load(tmp_path / 'run' / 'last.safetensors').state
    norms = {
        sensor: trained[f'encoder.patch_embeddings.{sensor}.layer_norm.bias']
        for sensor in ('depth', 'event')
    }
    assert all(norm.any() for norm in norms.values())  # they begin as zeros
