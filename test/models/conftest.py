"""SAM2's own tiny model with random weights, shared by the tests of the network."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate

from sartm_model.models.sartm.encoder import sam2_config


@pytest.fixture(scope='session')
def sam2_tiny():
    """SAM2.1's model as the `sam2` package builds it; tests do not change its weights."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return instantiate(sam2_config('tiny').model).eval()


@pytest.fixture(scope='session')
def sam2_file(sam2_tiny, tmp_path_factory):
    """A file in the format of the official one."""
    path = tmp_path_factory.mktemp('sam2') / 'sam2.1_hiera_tiny.pt'
    torch.save({'model': sam2_tiny.state_dict()}, path)
    return path
