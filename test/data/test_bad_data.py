"""Bad input of a data set of own frames: `sartm data check` names all of it in one run.

Each fault is one line with the file, what is wrong and what to do. The exit status is 2, and the
check writes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from sartm_model.cli.main import main

CLASSES = ['ground', 'road', 'person']
COLORS = {'#102030': 'ground', '#c80000': 'road', '#0000c8': 'person'}
STEMS = ('a', 'b', 'c')
SIZE = (6, 8)


class Yard:
    """A data set without faults, in the folder `root`, and the check of it."""

    def __init__(self, root: Path, capsys: Any) -> None:
        self.root, self._capsys = root, capsys
        rng = np.random.default_rng(0)
        for stem in STEMS:
            self.write(f'rgb/{stem}.JPG', rng.integers(0, 256, (*SIZE, 3), np.uint8))
            self.write(f'thermal/{stem}.tiff', rng.integers(27000, 31000, SIZE, np.uint16))
            self.write(f'masks/{stem}.png', rng.choice(np.array([0, 7, 11], np.uint8), SIZE))
        (root / 'train.txt').write_text('a\nb\n')
        self.values: dict[str, Any] = {
            'label_space': 'classes.yaml',
            'images': {'rgb': 'rgb/{stem}.*', 'thermal': 'thermal/{stem}.*'},
            'labels': 'masks/{stem}.png',
            'label_map': {0: 'ground', 7: 'road', 11: 'person'},
            'splits': {'train': 'train.txt', 'val': ['c']},
        }
        self.classes: Any = {'names': list(CLASSES)}

    def write(self, name: str, image: np.ndarray) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(path), image)

    def faults(self, *arguments: str) -> list[str]:
        """Run the check and return what it prints of each fault, without the path of the root."""
        data = self.root / 'data.yaml'
        data.write_text(yaml.safe_dump(self.values))
        (self.root / 'classes.yaml').write_text(yaml.safe_dump(self.classes))
        return self.check(*arguments)

    def check(self, *arguments: str) -> list[str]:
        """Run the check on the files as they are."""
        before = sorted(self.root.rglob('*'))
        root = ('--root', str(self.root / 'data.yaml'))
        status = main(['data', 'check', '--dataset', 'folder', *root, *arguments])
        printed, errors = self._capsys.readouterr()
        assert sorted(self.root.rglob('*')) == before
        lines = [line for line in printed.splitlines() if line.startswith('fault: ')]
        assert status == (2 if lines else 0)
        assert f'{len(lines)} faults' in printed.splitlines()[-1]
        assert 'error' not in errors
        return [line.removeprefix('fault: ').replace(f'{self.root}/', '') for line in sorted(lines)]


@pytest.fixture
def yard(tmp_path, capsys) -> Yard:
    return Yard(tmp_path, capsys)


def test_a_correct_data_set_has_no_fault(yard):
    assert yard.faults() == []


def test_a_stem_without_its_partner(yard):
    (yard.root / 'thermal' / 'b.tiff').unlink()
    assert yard.faults() == [
        'thermal/b.*: does not exist, the thermal file of the frame b; add it, or take the frame '
        'out of its split'
    ]


def test_two_files_for_one_stem(yard):
    yard.write('rgb/a.png', np.ones((*SIZE, 3), np.uint8))
    assert yard.faults() == [
        'rgb/a.*: rgb has a.JPG and a.png, two rgb files for the frame a; keep one of them'
    ]


def test_a_raw_id_that_the_label_map_lacks(yard):
    mask = np.zeros(SIZE, np.uint8)
    mask[0, :3] = 26
    yard.write('masks/a.png', mask)
    assert yard.faults() == [
        'masks/a.png: has the raw id 26 (3 pixels), which the label_map lacks; add it with its '
        'class or with "ignore", or add "others: ignore"'
    ]


@pytest.mark.parametrize('value', [65536, -1])
def test_a_raw_id_beyond_16_bits(yard, value):
    """Pillow reads these; they must not be taken for another id."""
    from PIL import Image

    mask = np.zeros(SIZE, np.int32)
    mask[2, 2] = value
    (yard.root / 'masks' / 'a.png').unlink()
    Image.fromarray(mask).save(yard.root / 'masks' / 'a.tif')
    yard.values['labels'] = 'masks/{stem}.*'
    (fault,) = yard.faults()
    assert fault.startswith(f'masks/a.tif: has the raw id {value} (1 pixels), which the label_map')


def test_a_class_id_beyond_the_classes(yard):
    del yard.values['label_map']
    for stem in STEMS:
        yard.write(f'masks/{stem}.png', np.eye(*SIZE, dtype=np.uint8) * (3 if stem == 'b' else 2))
    (fault,) = yard.faults()
    assert fault.startswith(
        'masks/b.png: has the class id 3, but the 3 classes have the ids 0 to 2'
    )
    assert 'does it have raw ids, which a label_map' in fault


def test_a_colour_that_is_in_no_class(yard):
    yard.values['label_map'] = COLORS
    for stem in STEMS:
        mask = np.full((*SIZE, 3), (0x30, 0x20, 0x10), np.uint8)  # OpenCV's order is BGR
        mask[0, 0] = (200, 0, 0)
        yard.write(f'masks/{stem}.png', mask)
    assert yard.faults() == []
    mask[1, :5] = (3, 2, 1)
    yard.write('masks/c.png', mask)
    assert yard.faults() == [
        "masks/c.png: has the colour '#010203' (5 pixels), which the label_map lacks; add it with "
        'its class or with "ignore", or add "others: ignore"'
    ]


@pytest.mark.parametrize('label_map', ['colours', 'ids'])
def test_two_classes_of_one_colour(yard, label_map):
    yard.values['label_map'] = label_map
    yard.classes = [{'name': name, 'color': [1, 2, 3]} for name in CLASSES[:2]] + CLASSES[2:]
    assert (
        'classes.yaml: has the same color [1, 2, 3] for ground and road; give each its own, or '
        'leave color out'
    ) in yard.faults()


@pytest.mark.parametrize('keys', ['7: road, 7: person', "'#C80000': road, '#c80000': person"])
def test_two_classes_of_one_value_in_the_label_map(yard, keys):
    """YAML keeps the last of two equal keys; a colour may be written in two ways."""
    yard.values['label_map'] = 'ids'
    yard.faults()
    path = yard.root / 'data.yaml'
    text = path.read_text()
    assert 'label_map: ids' in text
    path.write_text(text.replace('label_map: ids', f'label_map: {{{keys}, others: ignore}}'))
    assert any(' twice' in fault and fault.startswith('data.yaml: has ') for fault in yard.check())


@pytest.mark.parametrize(
    ('split', 'fault'),
    [
        (
            [],
            'data.yaml: the split test of data.yaml is empty; expected one stem per line, such as',
        ),
        ('test.txt', 'test.txt: is empty; expected one stem per line'),
        (
            'none.txt',
            'data.yaml: none.txt, the split test of data.yaml, does not exist; expected a',
        ),
        ('empty', 'empty: has no image of the split test; add its frames, or remove the split'),
        (None, "data.yaml: has the split 'test': None; expected a mapping such as"),
    ],
)
def test_a_split_that_names_nothing(yard, split, fault):
    yard.values['splits']['test'] = split
    (yard.root / 'test.txt').touch()
    for part in ('rgb', 'thermal', 'masks'):
        (yard.root / 'empty' / part).mkdir(parents=True)
    (found,) = yard.faults()
    assert found.startswith(fault)


def test_a_split_that_is_not_declared(yard):
    assert yard.faults('--split', 'tset') == [
        "data.yaml: has no split 'tset'; its splits are: train, val"
    ]


def test_a_modality_that_does_not_exist(yard):
    yard.values['images']['radar'] = 'radar/{stem}.*'
    (fault,) = yard.faults()
    assert fault.startswith(
        "data.yaml: has images of 'radar'; expected one or more of rgb, thermal"
    )


def test_a_thermal_image_of_another_size(yard):
    yard.write('thermal/b.tiff', np.arange(12, dtype=np.uint16).reshape(3, 4))
    (fault,) = yard.faults()
    assert fault.startswith('thermal/b.tiff: is 4x3, but rgb/b.JPG is 8x6; the images of a frame')
    assert 'declare "resize: true"' in fault
    yard.values['resize'] = True
    assert yard.faults() == []


@pytest.mark.parametrize('resize', [False, True])
def test_a_photograph_that_only_exif_turns_upright(yard, resize):
    """Resized to the upright photograph, a lying thermal image would be stretched unnoticed."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    path = yard.root / 'rgb' / 'a.JPG'
    with Image.open(path) as image:
        image.load()
    image.save(path, exif=exif)
    yard.write('masks/a.png', np.zeros(SIZE[::-1], np.uint8))
    yard.values['resize'] = resize
    (fault,) = yard.faults()
    assert fault.startswith('thermal/a.tiff: is 8x6, but rgb/a.JPG is 6x8; a.JPG was turned by 90')
    assert 'turn the other image too' in fault


def test_everything_that_is_wrong_is_found_at_once(yard):
    """Faults of the YAML file, of the classes, of a list, of files and of pixels, in one run."""
    (yard.root / 'thermal' / 'a.tiff').unlink()
    yard.write('rgb/b.png', np.ones((*SIZE, 3), np.uint8))
    mask = np.zeros(SIZE, np.uint8)
    mask[0] = 26
    mask[1] = 7
    yard.write('masks/a.png', mask)
    yard.write('thermal/c.tiff', np.arange(12, dtype=np.uint16).reshape(3, 4))
    (yard.root / 'masks' / 'c.png').write_bytes(b'not an image')
    (yard.root / 'test.txt').write_text('d/e\n')
    yard.classes = {
        'background_id': 7,
        'names': [{'name': 'ground', 'color': [1, 2, 3]}, {'name': 'road', 'color': '#010203'}, 1],
    }
    yard.values['label_map'] = {0: 'ground', 7: 'raod', 'x': 'road'}
    yard.values['splits'] |= {'test': 'test.txt', 'night': 'night.txt', 'dusk': 7}
    yard.values['images']['radar'] = 'radar/{stem}.*'
    yard.values |= {'condition': {'day': '('}, 'colour': 'red'}
    parts = [fault.split(': ')[:2] for fault in yard.faults()]
    found = {(file, ' '.join(what.split()[:4])) for file, what in parts}
    assert found == {
        ('classes.yaml', 'has the background_id 7;'),
        ('classes.yaml', 'has the same color'),
        ('classes.yaml', 'has the class name'),
        ('data.yaml', "has the key 'colour';"),
        ('data.yaml', "has the key 'x'"),
        ('data.yaml', "maps 7 to 'raod'"),
        ('data.yaml', "has images of 'radar';"),
        ('data.yaml', "has the split 'dusk'"),
        ('data.yaml', "has the condition 'day'"),
        ('data.yaml', 'night.txt, the split night'),
        ('test.txt', 'has d/e; expected one'),
        ('thermal/a.*', 'does not exist, the'),
        ('rgb/b.*', 'rgb has b.JPG and'),
        ('masks/a.png', 'has the raw id'),
        ('masks/b.png', 'has the raw id'),
        ('thermal/c.tiff', 'is 4x3, but rgb/c.JPG'),
        ('masks/c.png', 'cannot be read as'),
    }


def test_a_class_called_as_the_word_for_not_labelled(yard):
    yard.classes['names'].append('ignore')
    yard.values['label_map'][11] = 'ignore'
    assert yard.faults() == [
        'data.yaml: has a label_map and a class called ignore, which means "not labelled" in a '
        'label_map; rename the class'
    ]
    yard.values['label_map'] = 'ids'  # in which nothing is called by its name
    for stem in STEMS:
        yard.write(f'masks/{stem}.png', np.full(SIZE, 3, np.uint8))
    assert yard.faults() == []


@pytest.mark.parametrize('verb', ['evaluate', 'train'])
def test_a_verb_names_the_first_fault_and_how_many_more_there_are(yard, verb, capsys, tmp_path):
    yard.values['splits']['val'] = ['c', 'd', 'e']
    yard.faults()
    data, out = str(yard.root / 'data.yaml'), tmp_path / 'out'
    if verb == 'evaluate':
        source = ['--dataset', 'folder', '--root', data, '--split', 'val']
        arguments = ['evaluate', *source, '--json', str(out)]
    else:
        source = {'dataset': 'folder', 'root': data, 'split': 'val'}
        config = {'data': {'train': [source], 'val': source}, 'loss': {'language': 0}}
        (yard.root / 'train.yaml').write_text(yaml.safe_dump(config))
        arguments = ['train', '--config', str(yard.root / 'train.yaml'), '--out', str(out)]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'rgb/d.* does not exist' in line
    assert line.endswith('(and 5 more; sartm data check lists all)')
    assert not out.exists()
