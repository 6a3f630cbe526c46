"""The names of devices, which torch, ONNX Runtime and the node read in the same way."""

from __future__ import annotations

import pytest

from sartm_model.errors import SartmError
from sartm_model.inference.choices import choose_device
from sartm_model.inference.device_name import parse_device
from sartm_model.inference.onnx_session import choose_providers
from sartm_ros.settings.ros_parameters import parse


def test_kind_and_number():
    assert parse_device('auto') == ('auto', None)
    assert parse_device('cpu') == ('cpu', None)
    assert parse_device('cuda') == ('cuda', None)
    assert parse_device('cuda:0') == ('cuda', 0)
    assert parse_device('cuda:12') == ('cuda', 12)


@pytest.mark.parametrize(
    'name', ['', 'gpu', 'Cuda', 'cuda:', 'cuda:-1', 'cuda:1 ', 'cuda:\u0663', 'cpu:0', 'auto:1']
)
def test_every_reader_refuses_other_names(monkeypatch, name):
    # As where there are GPUs, so that only the name can be refused.
    monkeypatch.setattr('torch.cuda.device_count', lambda: 200)
    for read in (choose_device, choose_providers):
        with pytest.raises(SartmError, match=r'^device is .*; expected auto, cpu, cuda or cuda:N'):
            read(name)
    with pytest.raises(SartmError, match=r'^parameter device is '):
        parse({'device': name})


def test_a_number_that_torch_would_not_read_as_written(monkeypatch):
    monkeypatch.setattr('torch.cuda.device_count', lambda: 8)
    assert choose_device('cuda:07').index == 7
    with pytest.raises(SartmError, match="'cuda:128' is not there"):  # torch makes it -128
        choose_device('cuda:128')
