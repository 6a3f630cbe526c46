"""A pair's whole way on a GPU, followed without one: tensors of a CUDA device that hold no values.

It shows what a CUDA graph cannot record: an operation that reads a value, or has a shape that
depends on one, an operation over two devices, a copy from the processor's ordinary memory.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from sartm_model.config import ModelConfig
from sartm_model.frame import DIALS, Asked, FrameNetwork
from sartm_model.labels import MFNET
from sartm_model.network import Sartm
from sartm_model.preprocess import _rgb_statistics
from sartm_model.transfer import pack

GPU = torch.device('cuda:0')
CUDA, META = 1, 14  # of c10::DeviceType
READING = {'_local_scalar_dense', 'equal', 'is_nonzero', 'item', 'masked_select', 'nonzero'}
MODE = FakeTensorMode()


@pytest.fixture(scope='module', autouse=True)
def _a_build_that_knows_cuda():
    """A torch without CUDA has nothing to switch devices by: it gets what 'meta' tensors have."""
    if torch.cuda.is_available():
        pytest.skip('a GPU is here: test_captured records on it')
    if torch.version.cuda:
        yield
        return
    library = ctypes.CDLL(str(Path(torch.__file__).parent / 'lib' / 'libc10.so'))
    try:
        switches = (ctypes.c_void_p * (META + 1)).in_dll(
            library, '_ZN3c104impl26device_guard_impl_registryE'
        )
    except ValueError:
        pytest.skip('this torch keeps its devices in another place')
    switches[CUDA] = switches[META]
    yield
    switches[CUDA] = None


@pytest.fixture(scope='module', autouse=True)
def _nothing_fake_is_kept():
    _rgb_statistics.cache_clear()
    yield
    _rgb_statistics.cache_clear()


class Recordable(TorchDispatchMode):
    """Raises at what a CUDA graph cannot record; `seen` are the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.namespace == 'prim':  # `x.device` and its like: asked of Python
            return func(*args, **kwargs)
        with self:
            parts = func.decompose(*args, **kwargs)  # what it is made of
        if parts is not NotImplemented:
            return parts
        name = func.__name__.partition('.')[0]
        self.seen.add(name)
        if name in READING:
            raise AssertionError(f'{func} reads a value')
        given = [*args, *kwargs.values()]
        given += [part for some in given if isinstance(some, (list, tuple)) for part in some]
        for tensor in given:
            if isinstance(tensor, torch.Tensor) and tensor.device != GPU:
                raise AssertionError(f'{func} is given a tensor of {tensor.device}')
        made = func(*args, **kwargs)
        for tensor in made if isinstance(made, (list, tuple)) else [made]:
            if isinstance(tensor, torch.Tensor) and tensor.device != GPU:
                raise AssertionError(f'{func} makes a tensor of {tensor.device}')
        return made


def fake(tensor):
    """A tensor of the GPU like this one, without values."""
    return FakeTensor(MODE, tensor.to('meta'), GPU)


def empty(*shape, dtype=torch.float32):
    return fake(torch.empty(shape, dtype=dtype, device='meta'))


@pytest.fixture(scope='module', params=['nano', 'tiny', 'nano on two streams'])
def network(request):
    """What `Predictor` makes on a GPU: the inference form in half precision."""
    size, *parted = request.param.split(maxsplit=1)
    with torch.random.fork_rng():
        model = Sartm(ModelConfig(size=size), len(MFNET), merged=True).eval().half()
    if parted:
        model.halve(lambda first, second: (first(), second()))
    model.mask_decoder.position.float()
    network = FrameNetwork(model, MFNET.palette())
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(fake(weight.detach()), requires_grad=False)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = fake(value)
    network.device, network.dtype = GPU, torch.float16
    network._palette, network.held = fake(network._palette), fake(network.held)
    return network


def run(network, asked, rgb, thermal):
    """The operations of a second pair: the first may still send what is then kept."""
    settings = empty(DIALS)
    with MODE:
        network(rgb, thermal, settings, asked)
        with Recordable() as found:
            packed = pack(network(rgb, thermal, settings, asked))
    height, width = (thermal if rgb is None else rgb).shape[:2]
    assert packed.dtype == torch.uint8
    assert packed.shape == ((1 + asked.confidence + 3 * asked.overlay) * height * width,)
    return found.seen


@pytest.mark.parametrize('asked', [Asked(), Asked(True, True), Asked(True, True, True, True)])
def test_a_pair_meets_nothing_that_a_graph_cannot_record(network, asked):
    rgb, thermal = empty(70, 101, 3, dtype=torch.uint8), empty(35, 50, dtype=torch.uint16)
    assert ('sort' in run(network, asked, rgb, thermal)) != asked.fixed


def test_nor_does_one_modality(network):
    run(network, Asked(True, True), empty(70, 101, 3, dtype=torch.uint8), None)
    run(network, Asked(True, True), None, empty(70, 101, dtype=torch.uint8))


@pytest.mark.parametrize(
    ('fault', 'message'),
    [
        (lambda x: x * x.sum().item(), 'reads a value'),
        (lambda x: x[x > 0], 'nonzero'),
        (lambda x: x[[0, 1]], 'tensor of cpu'),
        (lambda x: x + torch.tensor([1.0]).to(x.device), 'tensor of cpu'),
        (lambda x: x + torch.tensor([1.0] * 3, device=x.device), 'tensor of cpu'),
        (lambda x: x.cpu().to(x.device), 'tensor of cpu'),
    ],
)
def test_such_operations_are_noticed(fault, message):
    x = empty(3)
    with MODE, Recordable(), pytest.raises(Exception, match=message):
        fault(x)
