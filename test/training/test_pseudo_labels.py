"""Pseudo-labels: which pixels are kept, and that the next training can use what is written."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest
import torch
from command_line import expect_error, read, run

from sartm_model.data.file_frames import FileFrames, FrameFiles
from sartm_model.data.registry import open_dataset
from sartm_model.errors import SartmError
from sartm_model.evaluation.multi_scale_flip import probabilities
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET
from sartm_model.pseudo_labels.from_network import (
    class_thresholds,
    confident_labels,
    image_patterns,
)
from sartm_model.training.run import train

NAMES = ('1', '2', '3.jpg')
HEIGHT, WIDTH = 72, 104


def test_a_pixel_is_kept_above_the_threshold_of_its_class():
    rng = np.random.default_rng(0)
    found = rng.dirichlet(np.full(9, 0.1), (20, 30)).astype(np.float32).transpose(2, 0, 1)
    found[:, 0, 0] = np.eye(9, dtype=np.float32)[2] * 0.75  # not above
    found[:, 0, 1] = np.nan
    labels = confident_labels(torch.from_numpy(found), class_thresholds(MFNET, 0.75, 0.95)).numpy()
    for y, x in np.ndindex(20, 30):
        best = max(range(9), key=lambda k: found[k, y, x])
        kept = found[best, y, x] > (0.95 if best == 0 else 0.75)
        assert labels[y, x] == (best if kept else 255)
    assert 0.2 < (labels == 255).mean() < 0.8


@pytest.fixture
def unlabelled(tmp_path):
    """JPEG and 16-bit thermal images of half the size, declared by `sartm data init`."""
    rng = np.random.default_rng(0)
    root = tmp_path / 'yard'
    for name in NAMES:
        rgb = cv2.resize(rng.integers(0, 256, (9, 13, 3), np.uint8), (WIDTH, HEIGHT))
        thermal = rng.integers(20000, 30000, (HEIGHT // 2, WIDTH // 2), np.uint16)
        for path, image in (
            (root / 'rgb' / f'cam_{name}.JPG', rgb),
            (root / 'thermal' / f'cam_{name}_ir.png', thermal),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), image)
    assert run('data', 'init', root) == 0
    return root


def test_the_pattern_of_files_whose_names_have_the_name_of_their_frame_twice(tmp_path):
    files = {
        number: FrameFiles({'rgb': tmp_path / 'cam1' / f'1_{number}_x.{suffix}'})
        for number, suffix in (('1', 'jpg'), ('2', 'png'))
    }
    dataset = FileFrames(files, MFNET, aligned=True)
    patterns = image_patterns(dataset, tmp_path / 'runs' / 'out')
    assert patterns == {'rgb': '../../cam1/1_{stem}_x.*'}
    dataset.files[1] = FrameFiles({'rgb': tmp_path / 'cam2' / '1_2_x.png'})
    with pytest.raises(SartmError, match=r'1_1_x\.jpg, have no common pattern'):
        image_patterns(dataset, tmp_path)
    both = tmp_path / '1.png'
    with pytest.raises(SartmError, match=r'1\.png, hold several modalities in one file'):
        image_patterns(
            FileFrames({'1': FrameFiles({'rgb': both, 'thermal': both})}, MFNET, aligned=True),
            tmp_path,
        )


def arguments(root, checkpoint, out, *more):
    data = ('--dataset', 'folder', '--root', root / 'data.yaml', '--split', 'all')
    return (
        'pseudo-label',
        *data,
        '--checkpoint',
        checkpoint,
        '--device',
        'cpu',
        '--out',
        out,
        *more,
    )


def test_labels_of_unlabelled_frames_and_a_training_on_them(
    unlabelled, nano_checkpoint, tmp_path, capsys, write_config
):
    predictor = Predictor(nano_checkpoint, device='cpu', engine='eager')

    def expected(frame):
        """The mean of two passes, the second of mirrored images and mirrored back."""
        inputs = predictor.preprocess(frame.rgb, frame.thermal).images
        plain = predictor.probabilities(inputs).numpy()
        mirrored = predictor.probabilities({name: x.flip(-1) for name, x in inputs.items()})
        return (plain + mirrored.numpy()[:, :, ::-1]) / 2

    frames = list(open_dataset('folder', unlabelled / 'data.yaml', 'all'))
    means = [expected(frame) for frame in frames]
    # An untrained network is never sure: thresholds at which half of the pixels are kept.
    sure = np.stack([mean.max(axis=0) for mean in means])
    background = np.stack([mean.argmax(axis=0) == 0 for mean in means])
    low = float(np.median(sure[~background])) if (~background).any() else 0.5
    high = float(np.median(sure[background])) if background.any() else 0.5
    out = tmp_path / 'some' / 'pseudo'
    thresholds = ('--threshold', low, '--background-threshold', high)
    capsys.readouterr()
    assert run(*arguments(unlabelled, nano_checkpoint, out, *thresholds)) == 0
    printed = capsys.readouterr().out

    names = list(NAMES)
    assert sorted(path.name for path in (out / 'labels').iterdir()) == [f'{n}.png' for n in names]
    manifest = json.loads((out / 'manifest.json').read_text())
    source = {'dataset': 'folder', 'root': str(unlabelled / 'data.yaml'), 'split': 'all'}
    made_with = manifest['settings']
    assert made_with.items() >= (source | {'checkpoint': str(nano_checkpoint)}).items()
    of_classes = [made_with['thresholds'][name] for name in MFNET.classes]
    assert of_classes == pytest.approx([high] + [low] * 8, abs=1e-6)
    assert made_with['scales'] == [1.0]
    found = np.stack([read(out / 'labels' / f'{name}.png') for name in names])
    limits = np.where(background, high, low)
    classes = np.stack([mean.argmax(axis=0) for mean in means])
    clear = np.abs(sure - limits) > 1e-5
    wanted = np.where(sure > limits, classes, 255)
    np.testing.assert_array_equal(found[clear], wanted[clear])
    share = 100 * (found != 255).mean()
    assert 30 < share < 70
    assert manifest['pixels']['ignored'] == (found == 255).sum()
    assert manifest['pixels']['car'] == (found == 1).sum()
    assert f'3 frames, {share:.1f} % of their pixels are kept' in printed
    for name, value in re.findall(r'^  (\w+) +([\d.]+) %$', printed, re.MULTILINE):
        truth = 100 * (found == MFNET.classes.index(name)).mean()
        assert float(value) == pytest.approx(truth, abs=1e-3)

    # The result opens as a data set, wherever the working directory is, and can be trained on.
    dataset = open_dataset('folder', out / 'data.yaml', 'train')
    assert dataset.names == names
    assert dataset.label_space == MFNET
    for frame, original, labels in zip(dataset, frames, found, strict=True):
        np.testing.assert_array_equal(frame.rgb, original.rgb)
        np.testing.assert_array_equal(frame.thermal, original.thermal)
        np.testing.assert_array_equal(frame.labels, labels)
    source = {'dataset': 'folder', 'root': str(out / 'data.yaml'), 'split': 'train'}
    data = {'train': [source], 'val': source, 'crop_height': 32, 'crop_width': 32, 'workers': 0}
    train(write_config(data=data, steps=1, val_every=1), tmp_path / 'run')


def test_the_scales_that_are_given_are_used(unlabelled, nano_checkpoint, tmp_path):
    every = ('--threshold', 0, '--background-threshold', 0)
    out = tmp_path / 'pseudo'
    command = arguments(unlabelled, nano_checkpoint, out, *every, '--scales', 0.5, 1)
    assert run(*command) == 0
    predictor = Predictor(nano_checkpoint, device='cpu', engine='eager')
    for frame in open_dataset('folder', unlabelled / 'data.yaml', 'all'):
        images = frame.select(predictor.modalities)
        found = read(out / 'labels' / f'{frame.name}.png')
        of_both, of_one = (
            probabilities(predictor, images, flip=True, scales=scales).argmax(dim=0).numpy()
            for scales in ((0.5, 1.0), (1.0,))
        )
        assert (found == of_both).mean() > 0.999
        assert (found == of_one).mean() < 0.99


def test_frames_without_a_kept_pixel_are_left_out_and_none_at_all_is_an_error(
    unlabelled, nano_checkpoint, tmp_path, capsys
):
    out = tmp_path / 'pseudo'
    never = ('--threshold', 0.999999, '--background-threshold', 0.999999)
    line = expect_error(capsys, out, *arguments(unlabelled, nano_checkpoint, out, *never))
    assert 'no pixel of 3 frames has a probability above its threshold' in line
    assert not list(tmp_path.glob('.pseudo*'))


def test_bad_input_is_one_line_and_writes_nothing(unlabelled, nano_checkpoint, tmp_path, capsys):
    out = tmp_path / 'pseudo'

    def error(*more, root=unlabelled, checkpoint=nano_checkpoint):
        return expect_error(capsys, out, *arguments(root, checkpoint, out, *more))

    assert 'threshold 1.5; expected a probability' in error('--threshold', 1.5)
    assert 'scale 0 is given' in error('--scales', 0)
    assert '/nowhere.safetensors' in error(checkpoint=tmp_path / 'nowhere.safetensors')
    assert 'no split' in error('--split', 'train')
    (unlabelled / 'rgb' / 'cam_2.JPG').write_bytes(b'no image')
    assert 'cam_2.JPG cannot be read' in error()
    synthetic = ('--dataset', 'synthetic', '--split', 'val')
    assert 'pseudo-labels need a data set on disk' in error(*synthetic)
    # A folder that exists is left as it is.
    out.mkdir()
    assert run(*arguments(unlabelled, nano_checkpoint, out)) == 2
    assert 'exists already' in capsys.readouterr().err
    assert not list(out.iterdir())
