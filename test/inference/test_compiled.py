"""The engine 'compile' on a CPU, with a network small enough to be compiled in seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_model import ENTRY, Toy

from sartm_model.config import ModelConfig
from sartm_model.errors import SartmError
from sartm_model.inference.compiled import CACHE_VARIABLE, CompiledNetwork, use_cache_folder
from sartm_model.inference.cuda_graph import CudaGraphCache
from sartm_model.inference.open_predictor import open_predictor
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models import registry
from sartm_model.models.registry import MODELS

needs_compiler = pytest.mark.skipif(shutil.which('g++') is None, reason='there is no g++')


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    """A checkpoint of the network of `toy_model`, with random weights."""
    path = tmp_path_factory.mktemp('compiled') / 'toy.safetensors'
    torch.manual_seed(0)
    model = Toy(ModelConfig(name='toy'), len(MFNET))
    checkpoints.save(path, model, MFNET, {})
    return path


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path):
    """The family of `toy_model`, and a cache folder of the test's own."""
    monkeypatch.setitem(MODELS, 'toy', ENTRY)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / 'cache'))


def frames(height=60, width=90, count=2):
    rng = np.random.default_rng(3)
    return [
        {
            'rgb': rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
            'thermal': rng.integers(0, 256, (height, width), dtype=np.uint8),
        }
        for _ in range(count)
    ]


def check_equal(found, wanted):
    # Rounding may decide a pixel at the edge of two classes.
    assert (found != wanted).mean() < 1e-3


DEVICES = [
    'cpu',
    pytest.param(
        'cuda',
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='torch sees no CUDA device'),
    ),
]


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize('device', DEVICES)
def test_it_gives_the_labels_of_eager_and_compiles_once_a_kind(toy, device):
    eager, compiled = (
        Predictor(toy, device=device, precision='fp32', engine=name)
        for name in ('eager', 'compile')
    )
    compiled.warm_up(60, 90)
    assert compiled.engine == 'compile'
    images = [*frames(), {'rgb': frames()[0]['rgb']}, {'thermal': frames()[1]['thermal']}]
    with torch.compiler.set_stance('fail_on_recompile'):
        for given in images:
            wanted = eager.predict(given, confidence=True)
            found = compiled.predict(given, confidence=True)
            check_equal(found.labels, wanted.labels)
            same = found.labels == wanted.labels
            assert np.abs(found.confidence.astype(int) - wanted.confidence)[same].max() <= 1
        # The node warms up in one thread and predicts in another.
        results = []
        thread = threading.Thread(target=lambda: results.append(compiled.predict(images[0])))
        thread.start()
        thread.join()
    check_equal(results[0].labels, eager.predict(images[0]).labels)
    (other,) = frames(33, 70, count=1)
    check_equal(compiled.predict(other).labels, eager.predict(other).labels)
    if device == 'cpu':  # as on a GPU, within the buffers of a graph
        compiled._graphs = CudaGraphCache(compiled.pipeline)
        check_equal(compiled.predict(other).labels, eager.predict(other).labels)
    assert compiled.engine == 'compile'


CHILD = """
import sys
import numpy as np
from sartm_model.inference.predictor import Predictor
from sartm_model.models.registry import MODELS
MODELS['toy'] = 'toy_model:Toy'
predictor = Predictor(sys.argv[1], device='cpu', engine='compile')
labels = predictor.predict(np.load(sys.argv[2])).labels
print(predictor.engine, labels.tobytes().hex())
"""


def run_child(toy, folder, **environment):
    """Predict the labels of RGB in a new process; returns engine, labels and its log."""
    (images,) = frames(count=1)
    np.save(folder / 'rgb.npy', images['rgb'])
    settings = {k: v for k, v in os.environ.items() if k not in (CACHE_VARIABLE, 'CXX')}
    paths = [str(Path(__file__).parents[1]), *sys.path]
    settings |= {'PYTHONPATH': os.pathsep.join(paths), **environment}
    process = subprocess.run(
        [sys.executable, '-c', CHILD, str(toy), str(folder / 'rgb.npy')],
        env=settings,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    engine, labels = process.stdout.split()
    wanted = Predictor(toy, device='cpu', engine='eager').predict(images['rgb']).labels
    check_equal(np.frombuffer(bytes.fromhex(labels), np.uint8), wanted.ravel())
    return engine, process.stderr


@pytest.mark.slow
@needs_compiler
def test_a_second_start_takes_the_code_of_the_first(toy, tmp_path):
    kept = []
    for _ in range(2):
        engine, log = run_child(toy, tmp_path, XDG_CACHE_HOME=str(tmp_path / 'home'))
        assert (engine, log) == ('compile', '')
        (folder,) = (tmp_path / 'home' / 'sartm').iterdir()
        files = {path: path.stat().st_mtime_ns for path in folder.rglob('*.so')}
        assert files
        kept.append(files)
    assert folder.name == f'torch_{torch.__version__}_cpu'
    assert folder.stat().st_mode & 0o077 == 0
    assert kept[0] == kept[1]


@pytest.mark.slow
def test_without_a_compiler_the_default_engine_runs(toy, tmp_path):
    environment = {'PATH': '', 'CXX': str(tmp_path / 'none'), CACHE_VARIABLE: str(tmp_path / 'new')}
    engine, log = run_child(toy, tmp_path, **environment)
    assert engine in ('eager', 'parallel')
    (line,) = log.splitlines()
    assert line.startswith(f'engine {engine} is used, because of compile: ')


def test_what_cannot_be_compiled_is_run_as_by_default(toy, monkeypatch, caplog):
    def compile_nothing(function, **_):
        def fails(images):
            raise RuntimeError('no compiler here\nand more lines')

        return fails

    monkeypatch.setattr(torch, 'compile', compile_nothing)
    eager, predictor = (Predictor(toy, device='cpu', engine=e) for e in ('eager', 'compile'))
    for images in frames():
        wanted, found = (p.predict(images).labels for p in (eager, predictor))
        np.testing.assert_array_equal(found, wanted)
    assert predictor.engine == 'eager'  # torch has one thread in the tests
    assert predictor.compiled_folder is None
    assert caplog.messages == [
        'engine eager is used, because of compile: RuntimeError: no compiler here'
    ]


def run_out_of_gpu_memory(images):
    raise torch.OutOfMemoryError('too much')


def run_out_of_host_memory(images):
    return torch.empty(1 << 60, dtype=torch.uint8)


@pytest.mark.parametrize('fails', [run_out_of_gpu_memory, run_out_of_host_memory])
def test_running_out_of_memory_is_not_taken_for_an_error_of_the_compiler(toy, monkeypatch, fails):
    predictor = Predictor(toy, device='cpu', engine='compile')
    monkeypatch.setattr(predictor.pipeline.compiled, '_forward_logits', fails)
    with pytest.raises(RuntimeError, match=r'too much|allocate memory'):
        predictor.predict(frames()[0])
    assert predictor.engine == 'compile'


def test_the_cache_folder(tmp_path, monkeypatch):
    """The user's own choice counts; a folder that cannot be made is replaced."""
    cpu = torch.device('cpu')
    assert use_cache_folder(cpu) == tmp_path / 'cache'
    monkeypatch.setenv(CACHE_VARIABLE, '')
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    folder = use_cache_folder(cpu)
    assert folder.parent == tmp_path
    assert os.environ[CACHE_VARIABLE] == str(folder)


def test_an_exported_file_has_no_engine():
    with pytest.raises(SartmError, match=r"engine 'compile' with x\.onnx, which ONNX Runtime runs"):
        open_predictor('x.onnx', engine='compile')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('family', 'size'), [('sartm', 'nano'), ('sartm', 'lite'), ('segrgbx', 'b0')]
)
def test_each_network_is_one_graph(family, size, tmp_path, monkeypatch):
    """A break in the graph would compile it in pieces; the pieces are not compiled here."""
    config = ModelConfig(name=family, size=size)
    checkpoints.save(tmp_path / 'x.safetensors', registry.build(config, len(MFNET)), MFNET, {})
    network = checkpoints.build(checkpoints.load(tmp_path / 'x.safetensors'))
    compile_ = torch.compile
    monkeypatch.setattr(
        torch,
        'compile',
        lambda *args, **options: compile_(*args, **options, fullgraph=True, backend='eager'),
    )
    compiled = CompiledNetwork(network)
    images = {'rgb': torch.randn(1, 3, 72, 104), 'thermal': torch.randn(1, 1, 72, 104)}
    with torch.inference_mode():
        (wanted, extent), (found, extent_found) = network.forward_logits(images), compiled(images)
    assert extent == extent_found
    torch.testing.assert_close(found, wanted)
