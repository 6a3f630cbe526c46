"""Temperature scaling: the fitted temperature, the divided weights, and `sartm calibrate`."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from command_line import expect_error, run

from sartm_model.config import ModelConfig
from sartm_model.data import synthetic
from sartm_model.data.frame import Frame
from sartm_model.errors import SartmError
from sartm_model.evaluation import temperature as temperature_scaling
from sartm_model.evaluation.temperature import fit_temperature, with_temperature
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.registry import MODELS, model_class

CLASSES, HEIGHT, WIDTH = 5, 60, 80


class RandomHeads:
    """Stands in for a predictor: the logits of a frame are drawn with its image as the seed."""

    modalities = ('rgb',)

    def __init__(self, heads: int) -> None:
        self.heads = heads

    def preprocess(self, images):
        return SimpleNamespace(images=images)

    def logits(self, images):
        generator = torch.Generator().manual_seed(int(images['rgb'][0, 0, 0]))
        return 4 * torch.randn(self.heads, CLASSES, HEIGHT, WIDTH, generator=generator)


def frames(predictor, temperature, count=8):
    """Frames whose true classes are drawn with the probabilities at a temperature."""
    rng = np.random.default_rng(0)
    drawn = []
    for index in range(count):
        image = np.full((HEIGHT, WIDTH, 3), index, np.uint8)
        logits = predictor.logits({'rgb': image}).double() / temperature
        probability = logits.softmax(dim=1).mean(dim=0).flatten(1).T.numpy()  # [H W, K]
        below = probability.cumsum(axis=1) < rng.random((HEIGHT * WIDTH, 1))
        labels = below.sum(axis=1).clip(max=CLASSES - 1).astype(np.uint8).reshape(HEIGHT, WIDTH)
        labels[rng.random(labels.shape) < 0.3] = 255
        drawn.append(Frame(str(index), {'rgb': image}, labels))
    return drawn


@pytest.mark.parametrize('heads', [1, 2])
@pytest.mark.parametrize('temperature', [0.4, 1.0, 3.0])
def test_the_temperature_that_the_classes_were_drawn_with_is_found(heads, temperature):
    predictor = RandomHeads(heads)
    fit = fit_temperature(predictor, frames(predictor, temperature))
    # 27 000 pixels: the standard error of the estimate is below 1 %.
    assert fit.temperature == pytest.approx(temperature, rel=0.05)
    assert fit.ece_after < 1.5
    if temperature != 1.0:
        assert fit.ece_before > 3 * fit.ece_after


def test_the_pixels_are_drawn_from_the_whole_frame(monkeypatch):
    """The classes of the upper half are drawn at another temperature than those of the lower."""
    predictor, middle = RandomHeads(1), HEIGHT // 2
    halves = zip(frames(predictor, 0.5), frames(predictor, 3.0), strict=True)
    mixed = [
        Frame(one.name, one.images, np.vstack([one.labels[:middle], other.labels[middle:]]))
        for one, other in halves
    ]
    of_all = fit_temperature(predictor, mixed).temperature
    monkeypatch.setattr(temperature_scaling, 'MAX_PIXELS', 4000)
    assert fit_temperature(predictor, mixed).temperature == pytest.approx(of_all, rel=0.1)


def test_frames_that_no_temperature_fits_are_refused():
    predictor = RandomHeads(1)
    right = [
        Frame(frame.name, frame.images, predictor.logits(frame.images)[0].argmax(0).byte().numpy())
        for frame in frames(predictor, 1.0, count=2)
    ]
    with pytest.raises(SartmError, match='no temperature fits these 2 frames'):
        fit_temperature(predictor, right)


def test_frames_without_labels_are_named():
    [frame] = frames(RandomHeads(1), 1.0, count=1)
    with pytest.raises(SartmError, match='frame 0 has no labels'):
        fit_temperature(RandomHeads(1), [Frame('0', frame.images)])


@pytest.mark.parametrize(
    'config',
    [
        ModelConfig(),
        ModelConfig(size='lite'),
        ModelConfig(name='segformer', size='b0', modalities=('thermal',)),
        ModelConfig(name='segrgbx', size='b0', without=('ma_clip',)),
    ],
    ids=lambda config: f'{config.name}-{config.size}',
)
def test_the_logits_of_every_family_are_divided(config):
    torch.manual_seed(0)
    model = model_class(config.name)(config, len(MFNET)).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith('bias'):
                value.normal_()
    before = checkpoints.Checkpoint(Path('random'), config, MFNET, {}, model.state_dict())
    after = with_temperature(with_temperature(before, 0.5), 0.8)
    assert after.card['temperature'] == pytest.approx(0.4)
    shapes = {'rgb': (1, 3, 64, 96), 'thermal': (1, 1, 64, 96)}
    images = {name: torch.randn(shapes[name]) for name in config.modalities}
    with torch.inference_mode():
        expected = checkpoints.build(before)(images).logits
        found = checkpoints.build(after)(images).logits
    assert expected.keys() == found.keys()
    # The weights are divided in float32; a layer left out would be wrong by a factor of 2.5.
    for name, logits in expected.items():
        torch.testing.assert_close(found[name], logits / 0.4, rtol=1e-3, atol=1e-3)


def test_a_family_that_does_not_name_its_last_layers_is_refused(monkeypatch):
    monkeypatch.setitem(MODELS, 'toy', 'toy_model:Toy')
    config = ModelConfig(name='toy')
    state = model_class('toy')(config, len(MFNET)).state_dict()
    toy = checkpoints.Checkpoint(Path('toy.safetensors'), config, MFNET, {}, state)
    with pytest.raises(SartmError, match='LOGIT_LAYERS; it cannot be calibrated'):
        with_temperature(toy, 2.0)


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    """Three generated scenes as a data set in MFNet's layout."""
    folder = tmp_path_factory.mktemp('scenes')
    for part in ('rgb', 'thermal', 'labels'):
        (folder / part).mkdir()
    names = [f'0000{index}N' for index in range(3)]
    for index, name in enumerate(names):
        frame = synthetic.render((9, index), 240, 320)
        images = {'rgb': frame.rgb[..., ::-1], 'thermal': frame.thermal, 'labels': frame.labels}
        for part, image in images.items():
            assert cv2.imwrite(str(folder / part / f'{name}.png'), image)
    (folder / 'val.txt').write_text('\n'.join(names))
    return ['--dataset', 'mfnet', '--root', folder, '--split', 'val']


def test_the_verb_writes_a_checkpoint_of_less_calibration_error(scenes, tmp_path, capsys):
    torch.manual_seed(0)
    demo = checkpoints.load('demo')
    vague = tmp_path / 'vague.safetensors'
    model = checkpoints.build(with_temperature(demo, 4.0), merged=False)
    checkpoints.save(vague, model, demo.label_space, {'note': 'kept'})
    out = tmp_path / 'calibrated.safetensors'
    capsys.readouterr()
    assert run('calibrate', '--checkpoint', vague, *scenes, '--out', out) == 0
    line = capsys.readouterr().out
    figures = {}
    for path in (vague, out):
        assert run('evaluate', '--checkpoint', path, *scenes, '--json', tmp_path / 'f.json') == 0
        figures[path] = json.loads((tmp_path / 'f.json').read_text())
    before, after = figures[vague]['ece'], figures[out]['ece']
    assert after < before / 2
    assert f'error on these frames {before:.1f} % before, {after:.1f} % after' in line
    card = checkpoints.load(out).card
    assert card['note'] == 'kept'
    assert card['temperature'] < 0.6


def test_exported_files_are_refused(scenes, tmp_path, capsys):
    pytest.importorskip('onnxruntime', reason='needs onnxruntime')
    exported, out = tmp_path / 'demo.onnx', tmp_path / 'out.safetensors'
    size = ['--height', 32, '--width', 32]
    assert run('export', '--checkpoint', 'demo', *size, '--out', exported) == 0
    line = expect_error(capsys, out, 'calibrate', '--checkpoint', exported, *scenes, '--out', out)
    assert 'is exported; calibrate the checkpoint it was made from' in line
