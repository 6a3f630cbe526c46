"""One network for data sets with different classes: loss, training, the score of each view."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from small_training import write_folder
from torch.utils.data import default_collate
from toy_model import ENTRY

from sartm_model.cli.main import main
from sartm_model.config import ModelConfig, load_train_config
from sartm_model.data.registry import open_dataset
from sartm_model.data.transforms import network_inputs
from sartm_model.data.unified_labels import open_run_label_space
from sartm_model.errors import SartmError
from sartm_model.evaluation.evaluate import FramePrediction, evaluate
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import PST900, LabelSpace
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models import registry
from sartm_model.training.data_module import TrainingData
from sartm_model.training.losses import ohem_cross_entropy
from sartm_model.training.module import SegmentationTraining
from sartm_model.training.run import train

SIZE = 32
OWN = {'street': ['road', 'car', 'person'], 'park': ['person', 'lawn', 'auto']}
UNION = ['road', 'car', 'person', 'lawn']


def test_the_loss_is_a_softmax_over_the_classes_of_each_images_data_set():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 4, 4, dtype=torch.float64).float().requires_grad_()
    views = [[0, 2, 3], [1, 2]]
    labels = torch.stack([torch.tensor(view)[torch.randint(len(view), (4, 4))] for view in views])
    labels[0, 0, 0] = 255
    excluded = torch.ones(2, 5, dtype=torch.bool)
    for image, view in enumerate(views):
        excluded[image, view] = False
    losses = []
    for image, view in enumerate(views):
        for row in range(4):
            for column in range(4):
                label = int(labels[image, row, column])
                if label != 255:
                    scores = np.exp(logits[image, view, row, column].detach().double().numpy())
                    losses.append(-np.log(scores[view.index(label)] / scores.sum()))
    # A probability of 1: every pixel is hard, so the loss is the plain mean.
    found = ohem_cross_entropy(logits, labels, probability=1.0, excluded=excluded)
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-5)
    found.backward()
    assert torch.isfinite(logits.grad).all()
    for image, view in enumerate(views):
        others = [k for k in range(5) if k not in view]
        assert (logits.grad[image, others] == 0).all()
        assert (logits.grad[image, view] != 0).any()
    nothing = ohem_cross_entropy(logits, torch.full((2, 4, 4), 255), excluded=excluded)
    assert nothing.item() == 0


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(registry.MODELS, 'toy', ENTRY)


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """Two data sets of blocks; each class of the union has its colour in both of them."""
    root = tmp_path_factory.mktemp('two')
    rng = np.random.default_rng(1)
    colors = np.array([[40, 40, 40], [220, 30, 30], [30, 30, 220], [40, 200, 40]], np.uint8)
    for name, classes in OWN.items():
        in_union = [UNION.index('car' if own == 'auto' else own) for own in classes]
        frames = []
        for _ in range(6):
            ids = np.kron(rng.integers(0, 3, (4, 4)), np.ones((8, 8), int)).astype(np.uint8)
            frames.append({'rgb': colors[np.array(in_union)[ids]], 'labels': ids})
        space = {'name': name, 'names': classes}
        write_folder(root / name, frames, train=4, label_space=space)
        (root / f'{name}.yaml').write_text(yaml.safe_dump(space))
    union = {'label_spaces': ['street.yaml', 'park.yaml'], 'synonyms': {'car': 'auto'}}
    (root / 'both.yaml').write_text(yaml.safe_dump(union))
    return root


@pytest.fixture(scope='module')
def trained(root) -> Path:
    sources = [{'dataset': 'folder', 'root': f'{name}/data.yaml', 'split': 'train'} for name in OWN]
    config = {
        'model': {'name': 'toy', 'size': '', 'modalities': ['rgb']},
        'label_space': 'both.yaml',
        'data': {
            'train': sources,
            'val': {**sources[0], 'split': 'val'},
            'more_val': [{**sources[1], 'split': 'val'}],
            'crop_height': SIZE,
            'crop_width': SIZE,
            'scale_min': 1.0,
            'scale_max': 1.0,
            'colour_jitter': 0.0,
            'batch_size': 4,
            'workers': 0,
            'drop_modality': 0,
        },
        'optim': {'lr': 0.03},
        'steps': 80,
        'val_every': 40,
        'ema_decay': 0.0,
        'device': 'cpu',
    }
    (root / 'train.yaml').write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.MODELS, 'toy', ENTRY)
        return train(root / 'train.yaml', root / 'run')


def test_the_checkpoint_knows_the_union_and_its_views(trained):
    space = checkpoints.load(trained).label_space
    assert list(space.classes) == UNION
    assert {view.space.name: view.ids for view in space.views} == {
        'street': (0, 1, 2), 'park': (2, 3, 1)
    }  # fmt: skip


def test_validation_scores_each_data_set_with_its_own_classes(root, trained):
    """By an evaluation of each of them; the run's figure is the mean."""
    lines = (root / 'run' / 'metrics.csv').read_text().splitlines()
    rows = [dict(zip(lines[0].split(','), line.split(','), strict=True)) for line in lines[1:]]
    last = [row for row in rows if row['val_miou']][-1]
    names = {'folder': 'street', 'folder_2': 'park'}
    mious = []
    for name, own in names.items():
        frames = open_dataset('folder', root / own / 'data.yaml', 'val')
        predictor = Predictor(trained, device='cpu', label_space=frames.label_space)
        scores = evaluate(
            lambda f, p=predictor: FramePrediction(p.predict(f.images).labels), frames
        )
        assert float(last[f'val_miou/{name}']) == pytest.approx(scores['miou'], rel=1e-4)
        for label in OWN[own]:
            iou = scores['per_class_iou'][label]
            assert float(last[f'val_iou/{name}/{label}']) == pytest.approx(iou, rel=1e-4)
        mious.append(scores['miou'])
    assert float(last['val_miou']) == pytest.approx(np.mean(mious), rel=1e-4)


@pytest.fixture
def data(root, trained) -> TrainingData:
    """The frames of the run."""
    space = open_run_label_space(str(root / 'both.yaml'))
    return TrainingData(load_train_config(root / 'train.yaml'), space)


@pytest.fixture
def module(root, trained) -> SegmentationTraining:
    """The run before its first step."""
    config = load_train_config(root / 'train.yaml')
    space = open_run_label_space(str(root / 'both.yaml'))
    return SegmentationTraining(registry.build(config.model, len(space)), config, space)


def test_a_step_does_not_train_the_classes_that_a_data_set_lacks(module, data):
    for view in module.label_space.views:
        drawn = [data.train_samples[index] for index in range(8)]
        lacking = torch.ones(len(UNION), dtype=torch.bool)
        lacking[list(view.ids)] = False
        batch = default_collate([x for x in drawn if torch.equal(x.excluded, lacking)])
        module.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # Lightning: values are logged without a trainer
            module.training_step(batch, 0).backward()
        moved = module.model.classifier.weight.grad.flatten(1).any(dim=1)
        assert moved.tolist() == [index in view.ids for index in range(len(UNION))]


def test_classes_are_counted_under_their_ids_in_the_union(root, data):
    shares = np.zeros(len(UNION))
    for name, classes in OWN.items():
        labels = [
            frame.labels for frame in open_dataset('folder', root / name / 'data.yaml', 'train')
        ]
        for own, label in enumerate(classes):
            union_id = UNION.index('car' if label == 'auto' else label)
            shares[union_id] += np.mean(np.array(labels) == own)
    assert len(set(shares)) == len(UNION)
    expected = shares.max() / shares
    assert data.train_samples.class_weights(1.0) == pytest.approx(expected)


@pytest.mark.parametrize('name', OWN)
def test_each_data_set_is_scored_in_its_own_view(root, trained, tmp_path, name):
    out = tmp_path / 'scores.json'
    data = ['--dataset', 'folder', '--root', str(root / name / 'data.yaml'), '--split', 'val']
    assert main(['evaluate', '--checkpoint', str(trained), *data, '--json', str(out)]) == 0
    scores = json.loads(out.read_text())
    assert list(scores['per_class_iou']) == OWN[name]
    assert scores['miou'] > 80  # the colours tell the classes
    # The same by hand: the columns of the data set's classes, their softmax, the largest.
    loaded = checkpoints.load(trained)
    model = checkpoints.build(loaded)
    columns = [UNION.index('car' if own == 'auto' else own) for own in OWN[name]]
    hits = total = 0
    for frame in open_dataset('folder', root / name / 'data.yaml', 'val'):
        images = {'rgb': torch.from_numpy(frame.images['rgb'])}
        with torch.no_grad():
            logits = model(network_inputs(images)).logits['main'][0, columns]
        hits += int((logits.argmax(dim=0).numpy() == frame.labels).sum())
        total += frame.labels.size
    assert scores['pixel_accuracy'] == pytest.approx(100 * hits / total)


def test_a_prediction_without_a_view_has_the_classes_of_the_union(root, trained):
    frame = open_dataset('folder', root / 'park' / 'data.yaml', 'val')[0]
    union = Predictor(trained, device='cpu')
    assert list(union.label_space.classes) == UNION
    images = {'rgb': torch.from_numpy(frame.images['rgb'])}
    with torch.no_grad():
        logits = union.pipeline.model(network_inputs(images)).logits['main'][0]
    expected = logits.argmax(dim=0).numpy()
    assert (union.predict(frame.images).labels == expected).mean() > 0.999
    assert len(np.unique(expected)) >= 3


@pytest.mark.parametrize('engine', ['eager', 'parallel'])
def test_two_heads_are_averaged_after_the_softmax_over_the_view(root, tmp_path, engine):
    """SARTM's heads, against the softmax of the selected columns of the whole logits."""
    space = _untrained(root, tmp_path / 'x.safetensors')
    own = space.views[1].space
    viewed = Predictor(tmp_path / 'x.safetensors', device='cpu', engine=engine, label_space=own)
    assert viewed.label_space.classes == tuple(OWN['park'])
    rng = np.random.default_rng(0)
    images = {
        'rgb': rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8),
        'thermal': rng.integers(0, 256, (SIZE, SIZE), np.uint8),
    }
    found = viewed.predict(images, confidence=True)
    model = checkpoints.build(checkpoints.load(tmp_path / 'x.safetensors'))
    inputs = network_inputs({name: torch.from_numpy(image) for name, image in images.items()})
    with torch.no_grad():
        heads = model(inputs).logits.values()
    shares = [F.softmax(logits[0, list(space.views[1].ids)], dim=0) for logits in heads]
    expected = torch.stack(shares).mean(dim=0)
    assert (expected.argmax(dim=0).numpy() == found.labels).mean() > 0.999
    best = (255 * expected.amax(dim=0)).round().int().numpy()
    assert np.abs(best - found.confidence).max() <= 1


def test_classes_that_are_no_view_are_refused(trained):
    fault = r"knows the classes of 'both' and of its views street, park, but those of 'pst900'"
    with pytest.raises(SartmError, match=fault):
        Predictor(trained, device='cpu', label_space=PST900)


def _untrained(root: Path, path: Path) -> LabelSpace:
    space = open_run_label_space(str(root / 'both.yaml'))
    torch.manual_seed(0)
    checkpoints.save(path, registry.build(ModelConfig(), len(space)), space, {})
    return space
