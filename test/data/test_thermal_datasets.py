"""SODA and SCUT-Seg in small folders of their layouts, with the traps of the published files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from sartm_model.cli.main import main
from sartm_model.data.registry import open_dataset
from sartm_model.data.validation import check
from sartm_model.errors import SartmError
from sartm_model.labels import CITYSCAPES, IGNORE_ID, SCUT_SEG, SODA

SIZE = (6, 8)
rng = np.random.default_rng(0)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def grey_jpeg(path: Path) -> None:
    """An image in three equal channels, as the published ones are."""
    write(path, np.dstack([rng.integers(0, 256, SIZE, np.uint8)] * 3))


@pytest.fixture
def soda(tmp_path) -> Path:
    """Thirty training and four test frames in folders of two depths, and copies of frames."""
    base = tmp_path / 'SODA' / 'InfraredSemanticLabel'
    lines = {'train': [], 'test': []}
    for number in range(34):
        name = f'Cam{number % 2}_{number:04d}'
        folder = 'day/street' if number % 2 else 'night'
        grey_jpeg(base / 'JPEGImages' / folder / f'{name}.jpg')
        labels = np.full(SIZE, number % 21, np.uint8)
        labels[0, 0] = IGNORE_ID
        write(base / 'SegmentationClassOne' / folder / f'{name}.png', labels)
        separator = '\t' if number % 3 else '   '
        lines['train' if number < 30 else 'test'].append(f'{name}{separator}NA')
    for copy in ('Cam0_0000(1)', '~temp_Cam1_0001', 'Cam0_0002 (1)'):
        grey_jpeg(base / 'JPEGImages' / 'night' / f'{copy}.jpg')
        lines['train'].insert(3, f'{copy} NA')
    lines['train'].append(lines['train'][0])
    for part, names in lines.items():
        (base / f'{part}_infrared.txt').write_text('\n'.join(names) + '\n\n')
    return base.parent


def test_soda_has_the_frames_of_its_lists_without_copies(soda):
    for root in (soda, soda / 'InfraredSemanticLabel'):
        train, val, test, whole = (
            open_dataset('soda', root, split) for split in ('train', 'val', 'test', 'trainval')
        )
        assert len(train) == 27
        assert len(val) == 3
        assert sorted(train.names + val.names) == whole.names
        assert [name[-4:] for name in whole.names] == sorted(
            (f'{n:04d}' for n in range(30)), key=lambda n: (int(n) % 2, n)
        )
        assert test.names == ['Cam0_0030', 'Cam0_0032', 'Cam1_0031', 'Cam1_0033']
    assert train.label_space is SODA
    assert len(SODA) == 21
    for frame in val:
        assert list(frame.images) == ['thermal']
        assert frame.thermal.shape == SIZE
        assert frame.labels[0, 0] == IGNORE_ID
        assert frame.labels[1, 1] == int(frame.name[-4:]) % 21


def test_the_validation_frames_depend_on_the_names_alone(soda):
    before = open_dataset('soda', soda, 'val').names
    path = soda / 'InfraredSemanticLabel' / 'train_infrared.txt'
    path.write_text('\n'.join(sorted(path.read_text().splitlines(), reverse=True)))
    assert open_dataset('soda', soda, 'val').names == before
    assert before == ['Cam0_0006', 'Cam1_0001', 'Cam1_0021']  # the same on every machine


def test_a_list_of_soda_may_begin_with_a_byte_order_mark(soda):
    before = open_dataset('soda', soda, 'test').names
    path = soda / 'InfraredSemanticLabel' / 'test_infrared.txt'
    path.write_text(path.read_text(), encoding='utf-8-sig')
    assert open_dataset('soda', soda, 'test').names == before


def test_a_check_of_soda_lists_every_fault(soda, capsys):
    base = soda / 'InfraredSemanticLabel'
    clean = check('soda', soda)
    assert not clean.faults
    assert {name: split.frames for name, split in clean.splits.items()} == {
        'train': 27, 'val': 3, 'test': 4
    }  # fmt: skip
    assert [Path(path).stem for path in clean.unlisted] == [
        'Cam0_0000(1)', 'Cam0_0002 (1)', '~temp_Cam1_0001'
    ]  # fmt: skip
    (base / 'JPEGImages' / 'night' / 'Cam0_0000.jpg').unlink()
    (base / 'SegmentationClassOne' / 'night' / 'Cam0_0032.png').unlink()
    write(base / 'SegmentationClassOne' / 'night' / 'Cam0_0004.png', np.full(SIZE, 21, np.uint8))
    with pytest.raises(SartmError, match=r'has no .*Cam0_0000\.jpg'):
        open_dataset('soda', soda, 'trainval')
    assert main(['data', 'check', '--dataset', 'soda', '--root', str(soda)]) == 2
    printed = capsys.readouterr().out
    assert 'Cam0_0000.jpg: does not exist' in printed
    assert 'Cam0_0032.png: does not exist' in printed
    assert 'Cam0_0004.png: has the class id 21' in printed
    assert '4 faults' in printed  # the image that is missing has its labels elsewhere


def test_two_images_of_one_name_are_refused(soda):
    grey_jpeg(soda / 'InfraredSemanticLabel' / 'JPEGImages' / 'more' / 'Cam0_0000.jpg')
    with pytest.raises(SartmError, match='have the same name'):
        open_dataset('soda', soda, 'train')


@pytest.mark.parametrize('name', ['soda', 'soda_synthetic', 'scut_seg'])
def test_what_is_not_there_is_said(tmp_path, name):
    with pytest.raises(SartmError, match='does not exist'):
        open_dataset(name, tmp_path, 'train')
    with pytest.raises(SartmError, match="no split 'tests'; expected train, val"):
        open_dataset(name, tmp_path, 'tests')
    with pytest.raises(SartmError, match='needs its folder as root'):
        open_dataset(name, None, 'train')


def test_the_synthetic_part_has_the_classes_of_cityscapes(tmp_path):
    raw = np.arange(48, dtype=np.uint8).reshape(SIZE)
    for number in range(10):
        name = f'aachen_{number:06d}_000019'
        folder = tmp_path / 'TIR_leftImg8bit' / 'train' / 'aachen'
        grey_jpeg(folder / f'{name}_leftImg8bit_synthesized_image.jpg')
        write(tmp_path / 'gtFine' / 'train' / f'{name}_gtFine_labelIds.png', raw)
    (tmp_path / 'gtFine' / 'train' / 'aachen_000000_000019_gtFine_color.png').touch()
    frames = open_dataset('soda_synthetic', tmp_path, 'all')
    assert frames.names[0] == 'aachen_000000_000019'
    found = dict(zip(raw.ravel().tolist(), frames[0].labels.ravel().tolist(), strict=True))
    words = {7: 'road', 8: 'sidewalk', 19: 'traffic_light', 21: 'vegetation', 24: 'person'}
    words |= {26: 'car', 28: 'bus', 31: 'train', 33: 'bicycle', 17: 'pole', 13: 'fence'}
    assert {raw_id: CITYSCAPES.classes[found[raw_id]] for raw_id in words} == words
    assert sum(id_ != IGNORE_ID for id_ in found.values()) == 19
    assert found[0] == found[9] == found[34] == IGNORE_ID
    parts = [open_dataset('soda_synthetic', tmp_path, split) for split in ('train', 'val')]
    assert [len(part) for part in parts] == [9, 1]
    assert not check('soda_synthetic', tmp_path).faults


@pytest.mark.parametrize('inside', ['', 'dataset'])
def test_scut_seg_maps_its_raw_ids(tmp_path, inside, capsys):
    base = tmp_path / inside
    raw_ids = {0: 'background', 7: 'road', 24: 'person', 25: 'rider', 26: 'car', 27: 'truck'}
    raw_ids |= {13: 'fence', 21: 'tree', 28: 'bus', 17: 'pole'}
    raw = rng.choice(list(raw_ids), SIZE).astype(np.uint8)
    for split, names in (('train', ('set01_1', 'set01_2')), ('val', ('set02_1',))):
        for name in names:
            grey_jpeg(base / 'image' / split / f'{name}.jpg')
            grey_jpeg(base / 'gt_instance' / split / f'{name}.jpg')
            write(base / 'gt_instance' / split / f'{name}_labelIds.png', raw)
        lines = (f'image/{split}/{n}.jpg\tgt_instance/{split}/{n}.jpg\n' for n in names)
        (base / f'scut_{split}.txt').write_text(''.join(lines))
    frames = open_dataset('scut_seg', tmp_path, 'train')
    assert frames.names == ['set01_1', 'set01_2']
    assert frames.label_space is SCUT_SEG
    expected = np.vectorize(raw_ids.__getitem__)(raw)
    assert (np.array(SCUT_SEG.classes)[frames[0].labels] == expected).all()
    report = tmp_path / 'report.json'
    command = ['data', 'check', '--dataset', 'scut_seg', '--root', str(tmp_path)]
    assert main([*command, '--json', str(report)]) == 0
    assert set(json.loads(report.read_text())['splits']) == {'train', 'val'}
    raw[0, 0] = 33
    write(base / 'gt_instance' / 'val' / 'set02_1_labelIds.png', raw)
    assert main(command) == 2
    assert 'raw id 33 (1 pixels), which SCUT-Seg does not use' in capsys.readouterr().out
