"""`sartm data init`: what it finds in a folder, and that what it writes can be used as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from sartm_model.cli.main import main
from sartm_model.data.declaration_draft import write_draft
from sartm_model.data.file_frames import FolderFrames
from sartm_model.data.registry import open_dataset
from sartm_model.data.validation import check
from sartm_model.errors import SartmError

MASK = np.array([[0, 7, 7, 255], [11, 11, 11, 7]], np.uint8)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def fill(
    root: Path, names=('RGB', 'lwir', 'gt'), frames: int = 10, mask: np.ndarray = MASK
) -> Path:
    """Write ten frames whose thermal images and masks have a suffix of their own in their names."""
    rng = np.random.default_rng(0)
    rgb, thermal, labels = (root / name for name in names)
    for number in range(10):
        write(rgb / f'{number:03d}.jpg', rng.integers(0, 256, (2, 4, 3), np.uint8))
        write(thermal / f'{number:03d}_ir.TIFF', rng.integers(0, 9999, (2, 4), np.uint16))
        write(labels / f'mask_{number:03d}.png', mask)
    return root


def test_the_draft_can_be_used_as_it_is(tmp_path, capsys):
    root = fill(tmp_path / 'yard')
    assert main(['data', 'init', str(root), '--seed', '3']) == 0
    printed = capsys.readouterr().out
    assert f'thermal: {root / "lwir"}\n' in printed
    assert '10 frames, 4 different values in their masks' in printed
    path = root / 'data.yaml'
    train, val = (open_dataset('folder', path, split) for split in ('train', 'val'))
    assert (len(train), len(val)) == (8, 2)
    assert sorted(train.names + val.names) == [f'{number:03d}' for number in range(10)]
    assert train.label_space.name == 'yard'
    assert train.label_space.classes == ('id_0', 'id_7', 'id_11')
    assert train.label_space.background_id is None
    np.testing.assert_array_equal(val[0].labels, [[0, 1, 1, 255], [2, 2, 2, 1]])
    assert not check('folder', path).faults
    # 30 of 80 pixels are 7, and so on.
    text = path.read_text()
    assert '  7: id_7  # 30 pixels, 37.5 % of the pixels, in 10 masks\n' in text
    assert '  255: ignore  # 10 pixels, 12.5 % of the pixels, in 10 masks\n' in text
    assert 'resize' not in text


@pytest.mark.parametrize(
    ('mask', 'background'),
    [
        ([[7, 7, 7, 0], [7, 7, 255, 0]], 1),  # 5 of 7 labelled pixels are the second value
        ([[7, 7, 7, 255], [0, 0, 0, 255]], None),  # exactly a half is no background
        ([[7, 0, 0, 255], [255, 255, 255, 255]], 0),  # most pixels are not labelled
    ],
)
def test_a_class_of_more_than_half_of_the_pixels_is_the_background(tmp_path, mask, background):
    write_draft(fill(tmp_path, mask=np.array(mask, np.uint8)))
    assert open_dataset('folder', tmp_path / 'data.yaml', 'val').label_space.background_id == (
        background
    )
    assert not check('folder', tmp_path / 'data.yaml').warnings


def test_names_that_end_like_those_of_images_are_read_back(tmp_path):
    names = ['0.jpg', '0', 'a.PNG', 'b.c']
    for name in names:
        write(tmp_path / 'rgb' / f'{name}.png', np.zeros((2, 4, 3), np.uint8))
        write(tmp_path / 'masks' / f'{name}.png', MASK)
    write_draft(tmp_path)
    splits = [open_dataset('folder', tmp_path / 'data.yaml', split) for split in ('train', 'val')]
    assert sorted(name for frames in splits for name in frames.names) == sorted(names)


def test_folders_of_arrays_are_found(tmp_path):
    root = fill(tmp_path, ('rgb', 'event_frames', 'masks'))
    shutil.rmtree(root / 'event_frames')
    (root / 'event_voxel5').mkdir()
    grid = np.random.default_rng(0).normal(size=(2, 4, 5)).astype(np.float32)
    for number in range(10):
        np.save(root / 'event_voxel5' / f'{number:03d}.npy', grid + number)
        (root / 'masks' / f'mask_{number:03d}.png').rename(root / 'masks' / f'{number:03d}.png')
    draft = write_draft(root)
    assert list(draft.folders) == ['rgb', 'event_voxel5', 'labels']
    assert draft.frames == 10
    frame = open_dataset('folder', draft.path, 'val')[0]
    np.testing.assert_array_equal(frame.images['event_voxel5'], grid + int(frame.name))
    report = check('folder', draft.path)
    assert not report.faults
    assert not report.unlisted
    pairs = FolderFrames({'rgb': root / 'rgb', 'event_voxel5': root / 'event_voxel5'})
    np.testing.assert_array_equal(pairs[3].images['event_voxel5'], grid + 3)


def test_the_split_depends_on_the_seed(tmp_path):
    lists = []
    for folder, seed in (('a', 0), ('b', 0), ('c', 1)):
        write_draft(fill(tmp_path / folder), seed)
        lists.append((tmp_path / folder / 'val.txt').read_text())
    assert lists[0] == lists[1] != lists[2]


def test_frames_without_masks_are_in_one_list(tmp_path):
    root = fill(tmp_path / 'yard')
    shutil.rmtree(root / 'gt')
    (root / 'lwir' / '003_ir.TIFF').unlink()
    draft = write_draft(root)
    assert (draft.frames, draft.incomplete) == (9, ['003'])
    frames = open_dataset('folder', root / 'data.yaml', 'all')
    assert frames.names == [f'{number:03d}' for number in range(10) if number != 3]
    assert frames[0].labels is None
    assert 'found no masks' in (root / 'data.yaml').read_text()
    assert not check('folder', root / 'data.yaml').faults
    assert {path.name for path in root.glob('*.*')} == {'data.yaml', 'all.txt'}


@pytest.mark.parametrize('name', ['data.yaml', 'train.txt', 'val.txt'])
def test_nothing_is_overwritten(tmp_path, name):
    root = fill(tmp_path)
    (root / name).write_text('mine')
    before = sorted(path.name for path in root.iterdir())
    with pytest.raises(SartmError, match=rf'{name} exists already; remove it'):
        write_draft(root)
    assert (root / name).read_text() == 'mine'
    assert sorted(path.name for path in root.iterdir()) == before


def test_masks_in_colours(tmp_path):
    palette = np.zeros((256, 3), np.uint8)
    palette[[0, 7, 11, 255]] = (0, 0, 0), (128, 64, 128), (220, 20, 60), (255, 255, 255)
    root = fill(tmp_path, mask=palette[MASK][..., ::-1])
    write_draft(root)
    declared = yaml.safe_load((root / 'data.yaml').read_text())
    assert declared['label_map'] == {
        '#000000': 'id_000000',
        '#804080': 'id_804080',
        '#dc143c': 'id_dc143c',
        '#ffffff': 'id_ffffff',
    }
    labels = open_dataset('folder', root / 'data.yaml', 'train')[0].labels
    np.testing.assert_array_equal(labels, [[0, 1, 1, 3], [2, 2, 2, 1]])


def test_masks_of_0_and_255_have_two_classes(tmp_path):
    root = fill(tmp_path, mask=np.where(MASK == 7, 255, 0).astype(np.uint8))
    write_draft(root)
    report = check('folder', root / 'data.yaml')
    assert not report.warnings
    assert report.label_space.classes == ('id_0', 'id_255')


def test_parts_are_told_by_their_images_where_the_names_say_nothing(tmp_path):
    root = tmp_path
    rng = np.random.default_rng(0)
    for name, image in (
        ('one', rng.integers(0, 9999, (16, 16), np.uint16)),
        ('two', rng.integers(0, 256, (32, 32, 3), np.uint8)),
        ('three', rng.integers(0, 3, (32, 32), np.uint8)),
    ):
        write(root / name / '1.png', image)
    (root / 'notes').mkdir()
    draft = write_draft(root)
    assert draft.folders == {
        'rgb': root / 'two', 'thermal': root / 'one', 'labels': root / 'three'
    }  # fmt: skip
    # The thermal image is smaller than the RGB image.
    frame = open_dataset('folder', root / 'data.yaml', 'train')[0]
    assert frame.thermal.shape == frame.labels.shape == (32, 32)


def test_frames_without_every_file_are_left_out_and_named(tmp_path):
    root = fill(tmp_path)
    (root / 'gt' / 'mask_004.png').unlink()
    for name in ('a.png', 'a.jpg'):
        write(root / '.thumbnails' / name, MASK)
    draft = write_draft(root)
    assert (draft.frames, draft.incomplete) == (9, ['004'])
    assert '004' not in (root / 'train.txt').read_text() + (root / 'val.txt').read_text()


def test_thermal_images_are_told_by_the_name_of_their_folder(tmp_path):
    draft = write_draft(fill(tmp_path, ('RGB_images', 'TIR_images', 'labels')))
    assert {part: folder.name for part, folder in draft.folders.items()} == {
        'rgb': 'RGB_images', 'thermal': 'TIR_images', 'labels': 'labels'
    }  # fmt: skip


@pytest.mark.parametrize(
    ('layout', 'parts'),
    [
        ('{split}/{part}', ('rgb', 'thermal', 'masks')),
        ('{part}/{split}', ('rgb', 'thermal', 'masks')),
        ('{part}/{split}', ('img_dir', 'lwir', 'ann_dir')),  # as in mmsegmentation
    ],
)
@pytest.mark.parametrize('splits', [('train', 'val'), ('0012', 'seq 2', 'größe')])
def test_folders_of_splits(tmp_path, layout, parts, splits):
    rng = np.random.default_rng(0)
    for number, split in enumerate(splits):
        rgb, thermal, masks = (tmp_path / layout.format(split=split, part=part) for part in parts)
        for stem in range(number + 1):
            write(rgb / f'{stem}.png', rng.integers(0, 256, (9, 9, 3), np.uint8))
            write(thermal / f'{stem}_t.png', np.full((9, 9), 100 * number + stem, np.uint16))
            write(masks / f'{stem}.png', np.eye(9, dtype=np.uint8) * 7)
    draft = write_draft(tmp_path)
    assert draft.frames == sum(range(len(splits) + 1))
    assert sorted(path.name for path in tmp_path.glob('*.*')) == ['data.yaml']
    text = draft.path.read_text(encoding='utf-8')
    assert all(split in text for split in splits)
    assert list(yaml.safe_load(text)['splits']) == sorted(splits)
    for number, split in enumerate(splits):
        frames = open_dataset('folder', draft.path, split)
        assert frames.names == [str(stem) for stem in range(number + 1)]
        for stem, frame in enumerate(frames):
            assert (frame.images['thermal'] == 100 * number + stem).all()
            assert (frame.labels == np.eye(9)).all()


def test_folders_that_are_not_used_are_named(tmp_path, capsys):
    for split in ('train', 'val', 'test'):
        for part in ('rgb', 'thermal', 'masks') if split != 'test' else ('rgb', 'thermal'):
            write(tmp_path / 'whole' / split / part / '1.png', MASK)
            write(tmp_path / 'turned' / part / split / '1.png', MASK)
            write(tmp_path / 'mixed' / part / ('' if part == 'thermal' else split) / '1.png', MASK)
    for root, unused in (('whole', 'test'), ('turned', 'test'), ('mixed', 'masks, rgb')):
        assert main(['data', 'init', str(tmp_path / root)]) == 0
        assert f'folders that are not used: {unused}\n' in capsys.readouterr().out
    splits = yaml.safe_load((tmp_path / 'turned' / 'data.yaml').read_text())['splits']
    assert list(splits) == ['train', 'val']


def test_what_no_draft_can_be_made_of(tmp_path):
    for part in ('rgb', 'masks'):
        write(tmp_path / 'inner' / part / f'{part}_0' / '1.png', MASK)
    with pytest.raises(SartmError, match='have no names in common; expected the same folders'):
        write_draft(tmp_path / 'inner')
    with pytest.raises(SartmError, match='no folder of images'):
        write_draft(tmp_path)
    for name in ('rgb', 'thermal'):  # what all of a folder share is not known from one file
        write(tmp_path / 'one' / name / f'a_{name}.png', MASK)
    with pytest.raises(SartmError, match=r'no names in common \(a_rgb\.png, a_thermal\.png\)'):
        write_draft(tmp_path / 'one')
    grey_alpha = fill(tmp_path / 'alpha')
    Image.fromarray(np.dstack([MASK, MASK]), 'LA').save(grey_alpha / 'gt' / 'mask_000.png')
    with pytest.raises(SartmError, match='2-channel image; labels must have one channel'):
        write_draft(grey_alpha)
    with pytest.raises(SartmError, match='is not a folder'):
        write_draft(tmp_path / 'none')
    fill(tmp_path / 'twice', ('rgb', 'thermal', 'masks'))
    fill(tmp_path / 'twice', ('camera', 'thermal', 'masks'))
    with pytest.raises(SartmError, match='both seem to be folders of rgb images'):
        write_draft(tmp_path / 'twice')
    write(tmp_path / 'odd' / 'rgb' / 'x1.png', MASK)
    write(tmp_path / 'odd' / 'thermal' / 'y2.png', MASK)
    with pytest.raises(SartmError, match=r'have no names in common \(x1\.png, y2\.png\)'):
        write_draft(tmp_path / 'odd')
    fill(tmp_path / 'stem', ('left', 'thermal', 'masks'))
    write(tmp_path / 'stem' / 'left' / '003.png', MASK)
    with pytest.raises(SartmError, match=r'left has both 003\.jpg and 003\.png'):
        write_draft(tmp_path / 'stem')
    noise = np.arange(128, dtype=np.uint8).reshape(8, 16)
    with pytest.raises(SartmError, match='has 128 different values'):
        write_draft(fill(tmp_path / 'jpeg', mask=noise))
    assert not list(tmp_path.rglob('*.yaml'))
    assert not list(tmp_path.rglob('*.txt'))
