"""The kernel from logits to bytes: its arithmetic in an interpreter, its compilation for real."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from sartm_model.benchmark import images
from sartm_model.frame import label_kernel
from sartm_model.labels import MFNET
from sartm_model.network.labelling import label_map
from sartm_model.predictor import Predictor

HERE = Path(__file__).resolve().parent
TRITON = pytest.mark.skipif(find_spec('triton') is None, reason='Triton is not installed')
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason='torch sees no CUDA device')
PALETTE = torch.from_numpy(MFNET.palette()).float()


def case(seen, size, classes=9, heads=2, dtype=torch.float32, channels=0, opacity=0.3):
    """Random logits at a quarter of the padded input, and a backdrop of so many channels."""
    generator = torch.Generator().manual_seed(sum(seen) + classes)
    padded = [-(-side // 32) * 8 for side in seen]
    maps = [
        (torch.randn(classes, *padded, generator=generator) * 3).to(dtype) for _ in range(heads)
    ]
    overlay = None
    if channels:
        backdrop = torch.rand(*size, channels, generator=generator) * 255
        if channels == 3:
            backdrop = backdrop.to(torch.uint8)  # RGB comes in counts, thermal with fractions
        overlay = (backdrop, PALETTE, torch.tensor(opacity))
    return {
        'heads': maps,
        'seen': seen,
        'size': size,
        'confidence': classes != 2,
        'overlay': overlay,
    }


def special(*heads, overlay=None):
    """Maps of 8 x 8 for an image of 32 x 32."""
    size = (32, 32)
    found = case(size, size)
    return found | {'heads': [head.float() for head in heads], 'overlay': overlay}


def unknown_below():
    head = torch.zeros(3, 8, 8)
    head[1] = 1
    broken, infinite = head.clone(), head.clone()
    broken[2, 6:] = torch.nan
    infinite[0, 6:] = torch.inf
    return head, broken, infinite


def one_of_two_equal():
    head = torch.zeros(7, 8, 8)
    head[3] = head[5] = 4.0
    return head


def halves():
    """Counts whose blend with black at a half lies between two counts."""
    backdrop = torch.arange(32 * 32 * 3, dtype=torch.int32).view(32, 32, 3).to(torch.uint8)
    return backdrop, torch.zeros(256, 3), torch.tensor(0.5)


def channels_last():
    found = case((64, 96), (64, 96))
    found['heads'][1] = found['heads'][1].permute(1, 2, 0).contiguous().permute(2, 0, 1)
    return found


RANDOM = {
    # what the network saw, and the size of the labels: as large, twice as large, odd, shrunk
    'as large': case((64, 96), (64, 96), channels=3),
    'twice': case((60, 80), (120, 160), dtype=torch.float16, channels=1),
    'odd': case((37, 53), (75, 107), channels=3, opacity=1.0),
    'shrunk': case((64, 64), (50, 33), dtype=torch.bfloat16, channels=3, opacity=0.0),
    'one pixel': case((1, 1), (1, 1), channels=3),
    'two classes': case((37, 53), (37, 53), classes=2),
    'four classes': case((32, 32), (64, 33), classes=4, heads=1, channels=1),
    'forty classes': case((50, 33), (50, 33), classes=40, dtype=torch.float16),
    'most classes': case((20, 12), (20, 12), classes=254, heads=1),
    'channels last': channels_last(),
}
head, broken, infinite = unknown_below()
SPECIAL = {
    'nan': special(head, broken, overlay=(torch.zeros(32, 32, 3), PALETTE, torch.tensor(1.0))),
    'infinite': special(infinite),
    'minus infinite': special(torch.full((3, 8, 8), -torch.inf)),
    'all equal': special(torch.zeros(20, 8, 8)),
    'two equal': special(one_of_two_equal(), one_of_two_equal()),
    'halves': special(one_of_two_equal(), overlay=halves()),
}


PAIRS = {
    name: (
        None if name == 'thermal' else torch.from_numpy(images(70, 101)[0][0]),
        None if name == 'rgb' else torch.from_numpy(images(70, 101)[0][1]),
    )
    for name in ('both', 'rgb', 'thermal')
}


@pytest.fixture(scope='module')
def planes(tmp_path_factory):
    """What the interpreter gives for each case and pair, all in one process."""
    folder = tmp_path_factory.mktemp('kernel')
    cases = RANDOM | SPECIAL
    given = {'cases': list(cases.values()), 'pairs': list(PAIRS.values())}
    torch.save(given, folder / 'cases.pt')
    command = [sys.executable, str(HERE / 'interpreted_kernel.py')]
    command += [str(folder / 'cases.pt'), str(folder / 'planes.pt')]
    paths = [str(HERE.parent), os.environ.get('PYTHONPATH', '')]
    environment = os.environ | {'PYTHONPATH': os.pathsep.join(paths)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return dict(
        zip([*cases, *PAIRS], torch.load(folder / 'planes.pt', weights_only=True), strict=True)
    )


def by_hand(heads, seen, size):
    """Probabilities float64 `[H, W, K]`, pixel by pixel."""
    result = np.zeros((*size, heads[0].shape[0]))
    for head in heads:
        logits = head.double().numpy()
        last = (logits.shape[1] - 1, logits.shape[2] - 1)
        for place in np.ndindex(*size):
            at = [
                min(max((i + 0.5) * old / (4 * new) - 0.5, 0.0), end)
                for i, old, new, end in zip(place, seen, size, last, strict=True)
            ]
            y, x = int(at[0]), int(at[1])
            v, u = at[0] - y, at[1] - x
            below, right = min(y + 1, last[0]), min(x + 1, last[1])
            logit = (1 - v) * ((1 - u) * logits[:, y, x] + u * logits[:, y, right])
            logit += v * ((1 - u) * logits[:, below, x] + u * logits[:, below, right])
            powers = np.exp(logit - logit.max())
            result[place] += powers / powers.sum() / len(heads)
    return result


@TRITON
@pytest.mark.parametrize('name', RANDOM)
def test_it_gives_what_loops_over_pixels_give(planes, name):
    given, found = RANDOM[name], planes[name]
    heads, seen, size = given['heads'], given['seen'], given['size']
    wanted = by_hand(heads, seen, size)
    labels = found['labels'].numpy()
    assert labels.shape == size
    assert all(plane.dtype == torch.uint8 for plane in found.values())
    chosen = np.take_along_axis(wanted, labels[..., None].astype(int), 2)[..., 0]
    assert (wanted.max(2) - chosen).max() < 4e-5  # float32 may decide between such two
    assert ('confidence' in found) == given['confidence']
    if given['confidence']:
        apart = found['confidence'].numpy() - 255 * wanted.max(2)
        assert np.abs(apart).max() <= 0.5 + 255 * 2e-5
    assert ('overlay' in found) == (given['overlay'] is not None)
    if given['overlay'] is not None:
        backdrop, palette, opacity = given['overlay']
        weight = np.where(labels == 0, 0, opacity.item())[..., None]
        blend = backdrop.numpy() * (1 - weight) + palette.numpy()[labels] * weight
        assert np.abs(found['overlay'].numpy() - blend).max() <= 0.5 + 1e-3


@TRITON
@pytest.mark.parametrize('name', [*RANDOM, *SPECIAL])
def test_it_gives_what_label_map_gives(planes, name):
    given, found = (RANDOM | SPECIAL)[name], planes[name]
    labels, probability = label_map(given['heads'], given['seen'], given['size'])
    assert (found['labels'] == labels).float().mean() > 0.999
    if given['confidence']:
        apart = found['confidence'].int() - (probability * 255).round().int()
        assert apart.abs().max() <= 1
        assert (apart == 0).float().mean() > 0.99


@TRITON
def test_unknown_equal_and_halfway(planes):
    found = planes['nan']
    assert (found['labels'][26:] == 255).all()
    assert (found['confidence'][26:] == 0).all()
    assert (found['overlay'][26:] == PALETTE[255]).all()
    assert (found['labels'][:20] == 1).all()
    for name in ('infinite', 'minus infinite'):
        assert (planes[name]['labels'][26:] == 255).all()
    assert (planes['all equal']['labels'] == 0).all()
    assert (planes['all equal']['confidence'] == 13).all()  # 12.75
    assert (planes['two equal']['labels'] == 3).all()
    backdrop, _, _ = SPECIAL['halves']['overlay']
    wanted = np.rint(backdrop.numpy() / 2)  # of two counts the even one
    np.testing.assert_array_equal(planes['halves']['overlay'].numpy(), wanted)


@TRITON
@pytest.mark.parametrize('name', PAIRS)
def test_a_pair_is_given_to_it_as_it_takes_it(planes, name):
    predictor = Predictor('demo', device='cpu', engine='eager')
    assert predictor.network.label_kernel is None  # it is for a GPU
    given = (None if image is None else image.numpy() for image in PAIRS[name])
    wanted, found = predictor.predict(*given, confidence=True, overlay=True), planes[name]
    same = wanted.labels == found['labels'].numpy()
    assert same.mean() > 0.999
    for plane in ('confidence', 'overlay'):
        apart = np.abs(getattr(wanted, plane).astype(int) - found[plane].numpy())
        assert apart[same].max() <= 1


@TRITON
@pytest.mark.parametrize(
    ('capability', 'logits', 'constants', 'backdrop'),
    [
        (90, '*fp16', {'TWO': True, 'CONFIDENCE': True, 'CHANNELS': 3}, '*u8'),
        (90, '*bf16', {'TWO': False, 'CONFIDENCE': False, 'CHANNELS': 0}, '*bf16'),
        (87, '*fp32', {'TWO': True, 'CONFIDENCE': True, 'CHANNELS': 1}, '*fp32'),
    ],
    ids=['H200', 'H200, labels alone', 'Orin, over thermal'],
)
def test_it_compiles_for_a_gpu_that_is_not_here(
    capability, logits, constants, backdrop, tmp_path, monkeypatch
):
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    import triton
    from triton.backends.compiler import GPUTarget

    from sartm_model.network.label_kernel import _label_pixels

    constants = constants | {'CLASSES': 9, 'UNKNOWN': 255, 'BLOCK': 256}
    types = {'first': logits, 'last': logits, 'backdrop': backdrop}
    types |= dict.fromkeys(('palette', 'opacity'), '*fp32')
    types |= dict.fromkeys(('labels', 'confidence', 'overlay'), '*u8')
    types |= dict.fromkeys(('row_step', 'column_step'), 'fp32')
    names = _label_pixels.arg_names
    signature = {n: types.get(n, 'constexpr' if n in constants else 'i32') for n in names}
    source = triton.compiler.ASTSource(_label_pixels, signature, constants)
    made = triton.compile(source, target=GPUTarget('cuda', capability, 32))
    assert len(made.asm['cubin']) > 0
    assert '.local' not in made.asm['ptx']  # a pixel's numbers stay in registers


@pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU is here')
def test_where_it_does_not_run_torch_makes_the_labels():
    with pytest.warns(UserWarning, match='slower than the Triton kernel.*needs triton'):
        assert label_kernel(torch.device('cuda')) is None


@TRITON
@CUDA
def test_a_pair_on_a_gpu_with_it_and_without_it():
    predictor = Predictor('demo', device='cuda', engine='eager')
    assert predictor.network.label_kernel is not None
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    for pair in ((rgb, rgb[..., 0]), (None, rgb[..., 0])):
        asked = {'confidence': True, 'overlay': True}
        one = predictor.predict(*pair, **asked)
        kernel, predictor.network.label_kernel = predictor.network.label_kernel, None
        other = predictor.predict(*pair, **asked)
        predictor.network.label_kernel = kernel
        same = one.labels == other.labels
        assert same.mean() > 0.999
        for name in ('confidence', 'overlay'):
            apart = np.abs(getattr(one, name).astype(int) - getattr(other, name))
            assert apart[same].max() <= 1
