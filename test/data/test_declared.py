"""The data set `folder`: files, labels, splits and conditions as a YAML file declares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from sartm_model.cli.main import main
from sartm_model.data.registry import open_dataset
from sartm_model.data.validation import check
from sartm_model.data.validation_report import summary
from sartm_model.errors import SartmError

CLASSES = ('ground', 'road', 'person')
DATA = {
    'label_space': {'background_id': 0, 'names': list(CLASSES)},
    'images': {'rgb': 'rgb/{stem}.*', 'thermal': 'thermal/{stem}_t.*'},
    'labels': 'masks/{stem}.png',
    'label_map': {0: 'ground', 7: 'road', 300: 'person'},
    'splits': {'train': 'train.txt', 'val': ['c N']},
    'condition': {'night': 'N$', 'day': 'D$'},
}
RAW = np.array([[0, 7, 300, 255], [7, 7, 0, 300]], np.uint16)
IDS = np.array([[0, 1, 2, 255], [1, 1, 0, 2]], np.uint8)
STEMS = ('aD', 'bN', 'c N')


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def images(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """RGB in OpenCV's order and 16-bit thermal."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (2, 4, 3), np.uint8), rng.integers(0, 60000, (2, 4), np.uint16)


@pytest.fixture
def root(tmp_path) -> Path:
    """The folder of three frames, of which two are in train.txt; the suffixes are mixed."""
    for seed, (stem, suffixes) in enumerate(
        zip(STEMS, (('PNG', 'tiff'), ('png', 'TIF'), ('bmp', 'png')), strict=True)
    ):
        rgb, thermal = images(seed)
        for path, image in (
            (tmp_path / 'rgb' / f'{stem}.{suffixes[0]}', rgb),
            (tmp_path / 'thermal' / f'{stem}_t.{suffixes[1]}', thermal),
        ):
            write(path, image)
        write(tmp_path / 'masks' / f'{stem}.png', RAW)
    (tmp_path / 'train.txt').write_text('aD.PNG\nbN\n')
    (tmp_path / 'rgb' / 'notes.md').write_text('not an image')
    return tmp_path


def declare(root: Path, **changes: Any) -> Path:
    """Write DATA with some keys replaced; a key of the value None is left out."""
    values = {key: value for key, value in {**DATA, **changes}.items() if value is not None}
    path = root / 'data.yaml'
    path.write_text(yaml.safe_dump(values))
    return path


def test_files_of_any_suffix_with_raw_ids(root):
    dataset = open_dataset('folder', declare(root), 'train')
    assert dataset.names == ['aD', 'bN']
    assert dataset.label_space.classes == CLASSES
    assert dataset.label_space.background_id == 0
    for seed, frame in enumerate(dataset):
        rgb, thermal = images(seed)
        np.testing.assert_array_equal(frame.rgb, rgb[..., ::-1])
        np.testing.assert_array_equal(frame.thermal, thermal)
        np.testing.assert_array_equal(frame.labels, IDS)
        assert (frame.labels.dtype, frame.thermal.dtype) == (np.uint8, np.uint16)
    assert [frame.condition for frame in dataset] == ['day', 'night']
    assert open_dataset('folder', declare(root), 'val').names == ['c N']


def test_a_list_may_begin_with_a_byte_order_mark(root):
    (root / 'train.txt').write_text('aD\nbN\n', encoding='utf-8-sig')
    assert open_dataset('folder', declare(root), 'train').names == ['aD', 'bN']


def test_paths_start_from_the_yaml_file(root, monkeypatch, tmp_path_factory):
    (root / 'classes').mkdir()
    (root / 'classes' / 'yard.yaml').write_text(f'names: {list(CLASSES)}')
    path = declare(root, label_space='classes/yard.yaml')
    monkeypatch.chdir(tmp_path_factory.mktemp('elsewhere'))
    dataset = open_dataset('folder', path, 'train')
    assert (dataset.label_space.name, len(dataset)) == ('yard', 2)
    assert dataset[0].labels is not None


def test_a_split_may_be_a_folder(root):
    for stem in ('x', 'y'):
        rgb, thermal = images(9)
        write(root / 'test' / 'rgb' / f'{stem}.jpg', rgb)
        write(root / 'test' / 'thermal' / f'{stem}_t.png', thermal)
        write(root / 'test' / 'masks' / f'{stem}.png', RAW)
    path = declare(root, splits={'test': 'test', 'train': 'train.txt'}, condition=None)
    dataset = open_dataset('folder', path, 'test')
    assert dataset.names == ['x', 'y']
    assert dataset[1].condition is None
    np.testing.assert_array_equal(dataset[1].labels, IDS)


def test_a_split_in_the_middle_of_a_pattern(root):
    """As in mmsegmentation: img_dir/train and ann_dir/train."""
    for number, (split, stem) in enumerate((('train', 'x'), ('val', 'x'), ('val', 'yN'))):
        write(root / 'img_dir' / split / f'{stem}.jpg', np.full((2, 4, 3), 50 * number, np.uint8))
        write(root / 'ann_dir' / split / f'{stem}.png', np.full((2, 4), 7, np.uint8))
    declared = {
        'images': {'rgb': 'img_dir/{split}/{stem}.*'},
        'labels': 'ann_dir/{split}/{stem}.png',
        'splits': {'train': 'train', 'holdout': 'val', 'val': ['yN']},
    }
    (root / 'train.txt').rename(root / 'list.txt')
    path = declare(root, **declared)
    train, holdout, val = (open_dataset('folder', path, s) for s in declared['splits'])
    assert (train.names, holdout.names, val.names) == (['x'], ['x', 'yN'], ['yN'])
    for frame, grey in ((train[0], 0), (holdout[0], 50), (holdout[1], 100), (val[0], 100)):
        assert (frame.images['rgb'] == grey).all()
        assert (frame.labels == 1).all()
    assert not check('folder', path).faults
    (root / 'ann_dir' / 'val' / 'x.png').unlink()
    faults = findings(check('folder', path).faults)
    assert list(faults) == ['val/x.png']
    with pytest.raises(SartmError, match=r'img_dir/test does not exist; expected the folder of'):
        open_dataset('folder', declare(root, **declared | {'splits': {'test': 'test'}}), 'test')


def test_one_modality_and_no_labels(root):
    path = declare(root, images={'thermal': 'thermal/{stem}_t.*'}, labels=None)
    frame = open_dataset('folder', path, 'train')[0]
    assert frame.rgb is None
    assert frame.labels is None
    np.testing.assert_array_equal(frame.thermal, images(0)[1])


def test_an_rgba_file_of_two_modalities_beside_a_third(root):
    rgba = np.random.default_rng(0).integers(0, 256, (2, 4, 4), np.uint8)
    for stem in STEMS:
        write(root / 'rgba' / f'{stem}.png', rgba)
        write(root / 'depth' / f'{stem}.png', np.full((2, 4), 900, np.uint16))
    both = 'rgba/{stem}.png'
    path = declare(root, images={'rgb': both, 'thermal': both, 'depth': 'depth/{stem}.png'})
    frame = open_dataset('folder', path, 'train')[0]
    assert list(frame.images) == ['rgb', 'thermal', 'depth']
    np.testing.assert_array_equal(frame.images['rgb'], rgba[..., 2::-1])
    np.testing.assert_array_equal(frame.images['thermal'], rgba[..., 3])
    assert (frame.images['depth'] == 900).all()
    assert not check('folder', path).unpaired
    # The order of the frame's images is that of the modalities, whichever of them share a file.
    path = declare(root, images={'rgb': both, 'thermal': 'thermal/{stem}_t.*', 'event': both})
    frame = open_dataset('folder', path, 'train')[0]
    assert list(frame.images) == ['rgb', 'thermal', 'event']
    path = declare(root, images={'rgb': both, 'thermal': both, 'lidar': both})
    with pytest.raises(SartmError, match='is given for rgb and thermal and lidar; expected a file'):
        open_dataset('folder', path, 'train')[0]


def test_labels_that_are_ids(root):
    for stem in STEMS:
        write(root / 'masks' / f'{stem}.png', IDS)
    for label_map in ('ids', None):
        frame = open_dataset('folder', declare(root, label_map=label_map), 'train')[0]
        np.testing.assert_array_equal(frame.labels, IDS)


COLORS = {'ground': (10, 20, 30), 'road': (200, 0, 0), 'person': (0, 0, 200)}


def color_masks(root: Path, extra: tuple[int, int, int]) -> None:
    """Write the masks in colours; what is 255 in `IDS` gets the colour `extra`."""
    palette = np.zeros((256, 3), np.uint8)
    palette[:3] = list(COLORS.values())
    palette[255] = extra
    for stem in STEMS:
        write(root / 'masks' / f'{stem}.png', palette[IDS][..., ::-1])


def colored_space() -> list[dict[str, Any]]:
    return [{'name': name, 'color': list(color)} for name, color in COLORS.items()]


def test_labels_by_the_colours_of_the_classes(root):
    color_masks(root, COLORS['person'])
    path = declare(root, label_space=colored_space(), label_map='colours')
    expected = np.where(IDS == 255, 2, IDS)
    np.testing.assert_array_equal(open_dataset('folder', path, 'train')[0].labels, expected)


def test_labels_by_colours_of_their_own(root):
    color_masks(root, (1, 2, 3))
    label_map = {'#0a141e': 'background', '#c80000': 'road', '#0000C8': 'person'}
    path = declare(root, label_map={**label_map, '#010203': 'ignore'})
    np.testing.assert_array_equal(open_dataset('folder', path, 'train')[0].labels, IDS)
    path = declare(root, label_map={**label_map, 'others': 'person'})
    expected = np.where(IDS == 255, 2, IDS)
    np.testing.assert_array_equal(open_dataset('folder', path, 'train')[0].labels, expected)
    with pytest.raises(SartmError, match=r"aD\.png has the colour '#010203' \(1 pixels\), which"):
        open_dataset('folder', declare(root, label_map=label_map), 'train')[0]


@pytest.mark.parametrize(
    ('label_map', 'expected'),
    [
        ({7: 'road', 300: 'person', 'others': 'ignore'}, {0: 255, 7: 1, 300: 2, 255: 255}),
        ({7: 'road', 'others': 'ground'}, {0: 0, 7: 1, 300: 0, 255: 255}),
        ({7: 'road', 255: 'person', 'others': 'background'}, {0: 0, 7: 1, 300: 0, 255: 2}),
        ({0: 'ground', 7: 'road', 300: 'ignore'}, {0: 0, 7: 1, 300: 255, 255: 255}),
    ],
)
def test_what_other_raw_ids_become(root, label_map, expected):
    frame = open_dataset('folder', declare(root, label_map=label_map), 'train')[0]
    wanted = [[expected[value] for value in row] for row in RAW.tolist()]
    np.testing.assert_array_equal(frame.labels, wanted)


def test_a_raw_id_that_the_label_map_lacks_is_a_fault(root):
    path = declare(root, label_map={0: 'ground', 7: 'road'})
    with pytest.raises(SartmError, match=r'aD\.png has the raw id 300 \(2 pixels\), which the'):
        open_dataset('folder', path, 'train')[0]


def test_thermal_of_another_size_is_resized_only_if_declared(root):
    write(root / 'thermal' / 'aD_t.tiff', np.array([[100, 300]], np.uint16))
    with pytest.raises(SartmError, match='must have the same size'):
        open_dataset('folder', declare(root), 'train')[0]
    frame = open_dataset('folder', declare(root, resize=True), 'train')[0]
    assert frame.thermal.shape == (2, 4)
    assert frame.thermal[0].tolist() == [100, 150, 250, 300]


@pytest.mark.parametrize(
    ('changes', 'fault'),
    [
        ({'label_space': None}, 'lacks label_space'),
        ({'label_space': 'voc'}, "label_space is 'voc'"),
        ({'label_space': 'none.yaml'}, r'none\.yaml does not exist'),
        ({'label_space': ['a', 'a']}, 'has the class a twice in names'),
        ({'images': {'sonar': 'd/{stem}.png'}}, "images of 'sonar'; expected one or more of rgb,"),
        (
            {'images': ['rgb']},
            r"images: \['rgb'\]; expected a mapping such as {rgb: 'rgb/{stem}\.\*'}",
        ),
        ({'images': {'rgb': 'rgb/*.png'}}, r"the pattern 'rgb/\*\.png' for rgb"),
        ({'images': {'rgb': 'rgb/{stem}'}}, 'for rgb; expected a file name with {stem}'),
        ({'labels': 7}, 'the pattern 7 for labels'),
        ({'label_map': 'names'}, "the label_map 'names'; expected ids, colours, or"),
        ({'label_map': {7: 'raod'}}, "maps 7 to 'raod' in label_map; expected ignore or a class"),
        ({'label_map': {'7': 'road'}}, "the key '7' in label_map; expected a raw id"),
        ({'label_map': {True: 'road'}}, 'the key True in label_map'),
        ({'label_map': {70000: 'road'}}, 'the key 70000 in label_map'),
        ({'label_map': {7: 'road', '#000007': 'road'}}, 'ids and colours in label_map'),
        (
            {
                'label_map': 'colours',
                'label_space': [{'name': n, 'color': [1, 2, 3]} for n in CLASSES],
            },
            r'the same color \[1, 2, 3\] for ground and road; give each its own',
        ),
        ({'splits': ['train']}, 'expected a mapping such as'),
        ({'splits': {'train': [7]}}, r"the split 'train': \[7\]; .* with numbers in quotes"),
        ({'splits': {'val': 'val.txt'}}, "no split 'train'; its splits are: val"),
        ({'splits': {'train': 'no.txt'}}, r'no\.txt, the split train of .* does not exist'),
        ({'splits': {'train': []}}, 'the split train of .* is empty'),
        ({'condition': {'day': '('}}, 'expected names with regular expressions'),
        ({'condition': 'night'}, "condition: 'night'; expected names with regular expressions"),
        ({'resize': 'yes'}, 'expected true or false'),
        ({'label_maps': 'ids'}, "the key 'label_maps'; expected label_space, images"),
        ({'splits': {'train': ['aD', 'zD', 'yD']}}, r'rgb/zD\.\* does not exist.*5 more; sartm'),
        ({'labels': 'none/{stem}.png'}, r'none does not exist; expected the folder of'),
    ],
)
def test_faults_of_the_declaration(root, changes, fault):
    with pytest.raises(SartmError, match=fault) as caught:
        open_dataset('folder', declare(root, **changes), 'train')
    assert '\n' not in str(caught.value)


def test_a_root_that_is_no_yaml_file(root):
    with pytest.raises(SartmError, match='needs as root the YAML file'):
        open_dataset('folder', None, 'train')
    with pytest.raises(SartmError, match='is a folder; the data set folder needs the YAML file'):
        open_dataset('folder', root, 'train')
    with pytest.raises(SartmError, match='declares no data set'):
        open_dataset('folder', root / 'train.txt', 'train')


def findings(found: dict[tuple[str, str], None]) -> dict[str, str]:
    return {'/'.join(Path(file).parts[-2:]): what for file, what in found}


def test_the_check_of_a_correct_data_set(root, capsys):
    report = check('folder', declare(root))
    assert not report.faults
    assert not report.warnings
    assert not report.unlisted
    train = report.to_dict()['splits']['train']
    assert train['conditions'] == {'day': 1, 'night': 1}
    assert train['classes']['road'] == {'pixels_percent': 37.5, 'frames': 2}
    assert train['not_labelled_percent'] == 12.5
    assert main(['data', 'check', '--dataset', 'folder', '--root', str(declare(root))]) == 0
    assert 'train: 2 frames (1 day, 1 night), 0 unusable, 4x2' in capsys.readouterr().out


def test_the_check_finds_frames_that_two_splits_share(root):
    """A split may be a part of another one by its name; of a common first word it is not."""
    names = {'yard_train': ['aD', 'bN'], 'yard_val': ['aD'], 'yard_val_night': ['aD']}
    report = check('folder', declare(root, splits=names))
    ((split, what),) = report.warnings
    assert split == 'yard_val'
    assert 'such as yard_val/aD with yard_train/aD: leakage' in what
    names = {'val': ['aD', 'bN'], 'val_night': ['aD']}
    assert not check('folder', declare(root, splits=names)).warnings


def test_the_check_finds_all_faults_at_once(root):
    rgb, _ = images(0)
    write(root / 'masks' / 'aD.png', np.full((2, 4), 13, np.uint8))
    (root / 'masks' / 'bN.png').unlink()
    write(root / 'thermal' / 'c N_t.png', np.full((5, 4), 900, np.uint16))
    write(root / 'rgb' / 'c N.jpg', rgb)
    write(root / 'rgb' / 'dD.png', rgb)
    path = declare(root, splits={'train': 'train.txt', 'val': ['c N', 'aD'], 'test': 'test.txt'})
    report = check('folder', path)
    faults = findings(report.faults)
    assert 'has the raw id 13 (8 pixels), which the label_map lacks' in faults['masks/aD.png']
    assert 'does not exist, the labels file of the frame bN' in faults['masks/bN.png']
    assert 'has c N.bmp and c N.jpg, two rgb files' in faults['rgb/c N.*']
    assert 'is 4x2, but' in faults['masks/c N.png']
    assert 'the split test of' in next(w for f, w in faults.items() if f.endswith('data.yaml'))
    assert len(faults) == 5
    assert 'such as val/aD with train/aD: leakage' in findings(report.warnings)['val']
    assert report.unpaired == ['bN', 'c N', 'dD']
    assert 'has no thermal and no labels file: add it' in findings(report.warnings)['rgb/dD.png']
    assert [Path(file).name for file in report.unlisted] == ['dD.png']
    assert '5 faults' in summary(report)


def test_the_check_of_masks_of_0_and_255(root):
    for stem in STEMS:
        write(root / 'masks' / f'{stem}.png', np.array([[0, 255] * 2] * 2, np.uint8))
    report = check('folder', declare(root, label_map='ids'), 'train')
    assert 'only class 0 (ground) can be learned' in findings(report.warnings)['train']
    report = check('folder', declare(root, label_map={0: 'ground', 255: 'person'}), 'train')
    assert findings(report.warnings) == {'train': 'has no pixel of road, which cannot be learned'}
