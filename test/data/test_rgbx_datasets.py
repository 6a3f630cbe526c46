"""DELIVER, NYUv2, UrbanLF and ZJU-RGB-P in small folders of their layouts, with their traps."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from sartm_model.cli.main import main
from sartm_model.data.registry import open_dataset
from sartm_model.data.validation import check
from sartm_model.errors import SartmError
from sartm_model.evaluation.evaluate import FramePrediction, evaluate
from sartm_model.labels import DELIVER, IGNORE_ID, NYUV2, URBANLF, ZJU_RGB_P, ZJU_RGB_P9

SIZE = (6, 8)
rng = np.random.default_rng(0)


def write(path: Path, image: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = image[..., ::-1] if image.ndim == 3 else image
    assert cv2.imwrite(str(path), np.ascontiguousarray(bgr))
    return image


def noise(*shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape or (*SIZE, 3), np.uint8)


def check_in_one_line(capsys, name: str, root: Path, *texts: str) -> None:
    """`sartm data check` says what it expected in one line and ends with 2."""
    assert main(['data', 'check', '--dataset', name, '--root', str(root)]) == 2
    shown = capsys.readouterr().err.strip()
    assert len(shown.splitlines()) == 1
    for text in texts:
        assert text in shown


# DELIVER


@pytest.fixture
def deliver(tmp_path) -> Path:
    """Frames of three weathers and two corner cases, under a root whose name has all the traps."""
    root = tmp_path / 'sun_img_rgb_motionblur'
    frames = [(w, s, 'MAP_1_point2') for w in ('cloud', 'night', 'sun') for s in ('train', 'val')]
    frames += [('night', 'test', 'MAP_2_point1_motionblur'), ('sun', 'test', 'MAP_3_EventLowRes')]
    for weather, split, place in frames:
        for number in range(10 if split == 'train' else 1):
            where, name = f'{weather}/{split}/{place}', f'{number:03d}'
            write(root / 'img' / where / f'{name}_rgb_front.png', noise())
            write(root / 'hha' / where / f'{name}_depth_front.png', noise())
            write(root / 'depth' / where / f'{name}_depth_front.png', noise())
            write(root / 'event' / where / f'{name}_event_front.png', noise(3, 4, 3))
            labels = noise()
            labels[..., 0] = rng.integers(1, 26, SIZE)
            labels[0, :2, 0] = 0, 255
            write(root / 'semantic' / where / f'{name}_semantic_front.png', labels)
    return root


def test_deliver_reads_what_there_is_of_the_modalities(deliver):
    test = open_dataset('deliver', deliver, 'test')
    assert test.label_space is DELIVER
    assert len(DELIVER) == 25
    frame = test[0]
    assert list(frame.images) == ['rgb', 'depth_coded', 'hha', 'event']  # there is no LiDAR
    where = deliver / '{}' / 'night/test/MAP_2_point1_motionblur'
    for name, folder, kind in (('hha', 'hha', 'depth'), ('depth_coded', 'depth', 'depth')):
        stored = cv2.imread(str(where).format(folder) + f'/000_{kind}_front.png')[..., ::-1]
        np.testing.assert_array_equal(frame.images[name], stored)
    assert frame.images['event'].shape == (*SIZE, 3)  # of 3x4 pixels
    stored = cv2.imread(str(where).format('semantic') + '/000_semantic_front.png')[..., 2]
    assert frame.labels[0, 0] == frame.labels[0, 1] == IGNORE_ID
    np.testing.assert_array_equal(frame.labels[1:], stored[1:].astype(int) - 1)


def test_the_files_of_other_sensors_are_not_read(deliver):
    whole = open_dataset('deliver', deliver, 'test')
    event_alone = whole.with_modalities(('event',))
    expected = whole[0]
    for folder in ('hha', 'depth'):
        shutil.rmtree(deliver / folder)
    frame = event_alone[0]
    # RGB gives the size of the others.
    assert list(frame.images) == ['rgb', 'event']
    np.testing.assert_array_equal(frame.images['event'], expected.images['event'])
    np.testing.assert_array_equal(frame.labels, expected.labels)
    with pytest.raises(SartmError, match=r'_depth_front\.png does not exist'):
        whole[0]


def test_delivers_protocols_are_two_data_sets(deliver):
    def names(dataset: str, split: str) -> list[str]:
        return open_dataset(dataset, deliver, split).names

    assert len(names('deliver', 'train')) == 30
    assert names('deliver_val', 'test') == names('deliver', 'val')
    whole = names('deliver_val', 'trainval')
    assert sorted(names('deliver_val', 'train') + names('deliver_val', 'val')) == sorted(whole)
    assert sorted(whole) == sorted(names('deliver', 'train'))
    assert len(names('deliver_val', 'val')) == 3
    assert len(names('deliver', 'test')) == 2
    assert not set(names('deliver', 'test')) & set(names('deliver_val', 'test'))
    for dataset in ('deliver', 'deliver_val'):
        report = check(dataset, deliver)
        assert not report.faults
        assert not report.unlisted


def test_delivers_weather_and_corner_case_are_conditions(deliver):
    """Of the frame, not of the folder that the data set lies in."""
    test = open_dataset('deliver', deliver, 'test')
    assert [frame.condition for frame in test] == ['night+motionblur', 'sun+eventlowres']
    assert open_dataset('deliver', deliver, 'train')[0].condition == 'cloud'
    result = evaluate(lambda frame: FramePrediction(np.zeros_like(frame.labels)), test)
    for condition in ('night', 'motionblur', 'sun', 'eventlowres'):
        assert result[condition]['frames'] == 1
    assert result['frames'] == 2
    assert result['night']['confusion'] == result['motionblur']['confusion']
    summed = np.add(result['night']['confusion'], result['sun']['confusion'])
    np.testing.assert_array_equal(summed, result['confusion'])
    assert check('deliver', deliver).splits['test'].conditions == {
        'night': 1, 'motionblur': 1, 'sun': 1, 'eventlowres': 1
    }  # fmt: skip


def test_faults_of_deliver(deliver, tmp_path, capsys):
    where = deliver / 'semantic/night/test/MAP_2_point1_motionblur/000_semantic_front.png'
    write(where, np.full((*SIZE, 3), 26, np.uint8))
    with pytest.raises(SartmError, match=r'raw id 26 .* expected 0 to 25 or 255'):
        open_dataset('deliver', deliver, 'test')[0]
    where.unlink()
    with pytest.raises(SartmError, match=r'has no .*000_semantic_front\.png'):
        open_dataset('deliver', deliver, 'test')
    check_in_one_line(capsys, 'deliver', tmp_path / 'sun_img_rgb_motionblur' / 'img', 'cloud, fog')
    with pytest.raises(SartmError, match="no split 'testing'; expected train, val, test"):
        open_dataset('deliver', deliver, 'testing')


# NYUv2


def nyu(root: Path, folders: tuple[str, str, str], x: np.ndarray) -> np.ndarray:
    """Write 10 training and 2 test frames; returns the values in the label images."""
    suffix = '.jpg' if folders[0] == 'RGB' else '.png'
    labels = rng.integers(0, 41, SIZE).astype(np.uint8)
    labels[0, :4] = 0, 40, 255, 1
    for number in range(12):
        write(root / folders[0] / f'{number}{suffix}', noise())
        write(root / folders[1] / f'{number}{suffix}', x)
        write(root / folders[2] / f'{number}.png', labels)
    (root / 'train.txt').write_text(''.join(f'{number}\n' for number in range(10)))
    (root / 'test.txt').write_text('10\n11\n')
    return labels


def test_nyuv2_with_hha_is_shifted_and_with_depth_is_not(tmp_path):
    stored = nyu(tmp_path, ('RGB', 'HHA', 'Label'), noise())
    frames = open_dataset('nyuv2_hha', tmp_path, 'test')
    assert frames.names == ['10', '11']
    assert frames.label_space is NYUV2
    assert len(NYUV2) == 40
    assert list(frames[0].images) == ['rgb', 'hha']
    expected = stored.astype(int) - 1
    expected[(stored == 0) | (stored == 255)] = IGNORE_ID
    np.testing.assert_array_equal(frames[0].labels, expected)

    depth = rng.integers(500, 9000, SIZE).astype(np.uint16)
    masks = nyu(tmp_path, ('rgb', 'depth', 'masks'), depth)  # beside the first layout
    with pytest.raises(SartmError, match='has the class id 40, but the 40 classes'):
        open_dataset('nyuv2', tmp_path, 'test')[0]
    masks[masks == 40] = 39
    for number in range(12):
        write(tmp_path / 'masks' / f'{number}.png', masks)
    frame = open_dataset('nyuv2', tmp_path, 'test')[0]
    np.testing.assert_array_equal(frame.images['depth'], depth)
    np.testing.assert_array_equal(frame.labels, masks)
    for name in ('nyuv2', 'nyuv2_hha'):
        train, val, both = (open_dataset(name, tmp_path, s) for s in ('train', 'val', 'trainval'))
        assert sorted(train.names + val.names) == both.names
        assert len(val) == 1
        assert not check(name, tmp_path).faults


def test_faults_of_nyuv2(tmp_path, capsys):
    nyu(tmp_path, ('RGB', 'HHA', 'Label'), noise())
    check_in_one_line(
        capsys, 'nyuv2', tmp_path, 'has no folder rgb; expected rgb/*.png', 'nyuv2_hha'
    )
    (tmp_path / 'test.txt').unlink()
    check_in_one_line(capsys, 'nyuv2_hha', tmp_path, 'test.txt cannot be read as a list')
    metres = rng.integers(1, 9, SIZE).astype(np.uint16)
    nyu(tmp_path / 'b', ('rgb', 'depth', 'masks'), metres)
    with pytest.raises(SartmError, match=r'at most 8; .*Is it in metres'):
        open_dataset('nyuv2', tmp_path / 'b', 'test')[0]


# UrbanLF


def scene(folder: Path, label: str | None) -> np.ndarray:
    """Write the views of a scene and its labels, as 'colours' or 'ids'; returns the class ids."""
    for row, column in [(1, 5), *((5, column) for column in range(1, 10))]:
        write(folder / f'{row}_{column}.png', noise())
    ids = rng.integers(0, 14, SIZE).astype(np.uint8)
    if label == 'colours':
        write(folder / 'label.png', np.array(URBANLF.colors, np.uint8)[ids])
    elif label == 'ids':
        np.save(folder / '5_5_label.npy', ids + 1)
    return ids


@pytest.mark.parametrize(
    ('name', 'part', 'label'), [('urbanlf_real', 'real', 'colours'), ('urbanlf_syn', 'Syn', 'ids')]
)
def test_urbanlf_has_views_and_labels(tmp_path, name, part, label):
    ids = [scene(tmp_path / part / 'train' / f'Image{n}', label) for n in range(2)]
    scene(tmp_path / part / 'val' / 'Image9', label)
    scene(tmp_path / part / 'test' / 'Image7', None)
    for root in (tmp_path, tmp_path / part):
        frames = open_dataset(name, root, 'train')
        assert frames.names == ['Image0', 'Image1']
        assert frames.label_space is URBANLF
        for frame, expected in zip(frames, ids, strict=True):
            np.testing.assert_array_equal(frame.labels, expected)
            views = [
                cv2.imread(str(tmp_path / part / 'train' / frame.name / f'{view}.png'))[..., ::-1]
                for view in ('5_5', '1_5', '5_1', '5_9')
            ]
            np.testing.assert_array_equal(frame.images['rgb'], views[0])
            np.testing.assert_array_equal(frame.images['light_field'], views[1])
            np.testing.assert_array_equal(frame.images['light_field_row'][..., :3], views[2])
            np.testing.assert_array_equal(frame.images['light_field_row'][..., -3:], views[3])
    assert open_dataset(name, tmp_path, 'test')[0].labels is None  # not published
    assert not check(name, tmp_path).faults


def test_urbanlf_syn_has_pixels_without_a_class(tmp_path):
    scene(tmp_path / 'Syn' / 'train' / 'a', 'ids')
    path = tmp_path / 'Syn' / 'train' / 'a' / '5_5_label.npy'
    raw = np.full(SIZE, 14)
    raw[0, :2] = 0, 255
    np.save(path, raw)
    labels = open_dataset('urbanlf_syn', tmp_path, 'train')[0].labels
    assert labels[0, 0] == labels[0, 1] == IGNORE_ID
    assert (labels[1:] == URBANLF.classes.index('sky')).all()
    raw[0, 0] = 15
    np.save(path, raw)
    with pytest.raises(SartmError, match=r'raw id 15 .*expected 0 to 14 or 255'):
        open_dataset('urbanlf_syn', tmp_path, 'train')[0]
    np.save(path, raw[..., None])
    with pytest.raises(SartmError, match=r'labels must be integers \(H, W\)'):
        open_dataset('urbanlf_syn', tmp_path, 'train')[0]


def test_an_unknown_colour_of_urbanlf_is_no_bike(tmp_path, capsys):
    scene(tmp_path / 'real' / 'train' / 'a', 'colours')
    write(tmp_path / 'real' / 'train' / 'a' / 'label.png', np.full((*SIZE, 3), 7, np.uint8))
    with pytest.raises(SartmError, match=r"has the colour '#070707' .*which UrbanLF does not use"):
        open_dataset('urbanlf_real', tmp_path, 'train')[0]
    check_in_one_line(capsys, 'urbanlf_syn', tmp_path, 'expected Syn/<split>/<scene>/5_5.png')


# ZJU-RGB-P


def zju(root: Path, layout: str, highest: int) -> None:
    """Write 10 training and 2 validation frames with ids up to `highest`."""
    for number in range(12):
        labels = rng.integers(0, highest + 1, SIZE).astype(np.uint8)
        labels[0, 0] = highest
        folder = 'train_label' if number < 10 else 'val_label'
        write(root / folder / f'{number:03d}.png', labels)
        if layout == 'angles':
            for angle in ('0', '45', '90', '135'):
                write(root / angle / f'{number:03d}.png', noise())
        else:
            write(root / 'images' / f'{number:03d}_image0_0.png', noise())
            write(root / 'images' / f'{number:03d}_aolp.png', noise())


@pytest.mark.parametrize('layout', ['angles', 'files'])
@pytest.mark.parametrize(
    ('name', 'space', 'highest'), [('zju_rgb_p', ZJU_RGB_P, 7), ('zju_rgb_p9', ZJU_RGB_P9, 8)]
)
def test_zju_rgb_p_in_both_layouts_and_both_numberings(tmp_path, layout, name, space, highest):
    zju(tmp_path, layout, highest)
    test = open_dataset(name, tmp_path, 'test')
    assert test.names == ['010', '011']
    assert test.label_space is space
    frame = test[0]
    assert list(frame.images) == ['rgb', 'polarization']
    assert space.classes[frame.labels[0, 0]] == 'bicycle'
    file = '0/010.png' if layout == 'angles' else 'images/010_image0_0.png'
    np.testing.assert_array_equal(frame.rgb, cv2.imread(str(tmp_path / file))[..., ::-1])
    if layout == 'angles':
        images = [
            cv2.imread(str(tmp_path / angle / '010.png')).astype(float).mean(axis=2)
            for angle in ('0', '45', '90', '135')
        ]
        s1, s2 = images[0] - images[2], images[1] - images[3]
        dolp = np.minimum(1, np.sqrt(s1**2 + s2**2) / (sum(images) / 4))
        np.testing.assert_allclose(frame.images['polarization'][..., 2], 255 * dolp, atol=0.6)
    parts = [open_dataset(name, tmp_path, split) for split in ('train', 'val', 'trainval')]
    assert [len(part) for part in parts] == [9, 1, 10]
    report = check(name, tmp_path)
    assert not report.faults
    assert not report.unlisted


def test_faults_of_zju_rgb_p(tmp_path, capsys):
    zju(tmp_path / 'a', 'angles', 8)
    with pytest.raises(SartmError, match=r'raw id 8 .*copies with background 0 are zju_rgb_p9'):
        open_dataset('zju_rgb_p', tmp_path / 'a', 'test')[0]
    (tmp_path / 'a' / '90' / '010.png').unlink()
    with pytest.raises(SartmError, match=r'90/010\.png does not exist'):
        open_dataset('zju_rgb_p9', tmp_path / 'a', 'test')[0]
    check_in_one_line(capsys, 'zju_rgb_p', tmp_path, 'expected train_label and val_label')
    write(tmp_path / 'train_label' / '000.png', np.zeros(SIZE, np.uint8))
    check_in_one_line(capsys, 'zju_rgb_p', tmp_path, 'neither the folders 0, 45, 90, 135 nor')
