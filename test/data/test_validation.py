"""`sartm data check`: one run finds every fault, and its sums agree with a count by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from sartm_model.cli.main import main
from sartm_model.data.registry import open_dataset
from sartm_model.data.validation import check
from sartm_model.data.validation_report import summary
from sartm_model.errors import SartmError
from sartm_model.labels import FMB, MFNET

SIZE = (6, 8)
TRAIN, VAL = ('00001D', '00002N', '00003N'), ('00004D',)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def random_images(seed: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RGB (in OpenCV's order), thermal and labels."""
    rng = np.random.default_rng(seed)
    rgb, thermal = (rng.integers(0, 256, shape, np.uint8) for shape in ((*SIZE, 3), SIZE))
    return rgb, thermal, rng.integers(0, classes, SIZE, np.uint8)


@pytest.fixture
def mfnet(tmp_path) -> Path:
    root = tmp_path / 'mfnet'
    for seed, stem in enumerate(TRAIN + VAL):
        for part, image in zip(('rgb', 'thermal', 'labels'), random_images(seed, 9), strict=True):
            write(root / part / f'{stem}.png', image)
    for name, stems in (
        ('train', TRAIN),
        ('val', VAL),
        ('train_day', TRAIN[:1]),
        ('train_night', TRAIN[1:]),
    ):
        (root / f'{name}.txt').write_text('\n'.join(stems) + '\n')
    (root / 'readme.txt').write_text('Not a list of frames.')
    return root


@pytest.fixture
def fmb(tmp_path) -> Path:
    root = tmp_path / 'fmb'
    for seed, (split, stem) in enumerate((('train', 'a'), ('train', 'b'), ('test', 'a'))):
        folders = ('Visible', 'Infrared', 'Label')
        for part, image in zip(folders, random_images(seed, 15), strict=True):
            write(root / split / part / f'{stem}.png', image)
    return root


def findings(report) -> tuple[dict[str, str], dict[str, str]]:
    """Faults and warnings by the last two parts of the file's path."""
    return tuple(
        {'/'.join(Path(file).parts[-2:]): what for file, what in found}
        for found in (report.faults, report.warnings)
    )


def test_a_correct_data_set_and_its_sums(mfnet):
    report = check('mfnet', mfnet)
    assert not report.faults
    assert not report.warnings
    assert not report.unpaired
    assert not report.unlisted
    assert sorted(report.splits) == ['train', 'train_day', 'train_night', 'val']
    train = report.to_dict()['splits']['train']
    assert (train['frames'], train['unusable']) == (3, 0)
    assert train['conditions'] == {'day': 1, 'night': 2}
    assert train['sizes'] == {'8x6': 3}
    assert train['thermal_types'] == {'uint8': 3}
    frames = list(open_dataset('mfnet', mfnet, 'train'))
    pixels = [pixel for frame in frames for pixel in frame.thermal.ravel().tolist()]
    assert tuple(train['thermal_range']) == (min(pixels), max(pixels))
    for index, name in enumerate(MFNET.classes):
        per_frame = [sum(i == index for i in f.labels.ravel().tolist()) for f in frames]
        assert train['classes'][name]['frames'] == sum(count > 0 for count in per_frame)
        percent = 100 * sum(per_frame) / (3 * SIZE[0] * SIZE[1])
        assert train['classes'][name]['pixels_percent'] == pytest.approx(percent)
    assert 'train: 3 frames (1 day, 2 night), 0 unusable, 8x6, thermal uint8' in summary(report)
    # Of one split alone, the other lists still tell what is in no split.
    one = check('mfnet', mfnet, 'val')
    assert list(one.splits) == ['val']
    assert not one.unlisted


def test_day_and_night_lists_are_splits(mfnet):
    assert open_dataset('mfnet', mfnet, 'train_night').names == list(TRAIN[1:])
    (mfnet / 'train_day.txt').write_text('00001D\n00002N\n')
    faults, _ = findings(check('mfnet', mfnet))
    assert faults == {'mfnet/train_day.txt': 'names 00002N, a night frame'}
    assert not check('mfnet', mfnet, 'train').faults


def test_every_fault_is_found_in_one_run(mfnet):
    write(mfnet / 'thermal' / '00001D.png', np.zeros((5, 8), np.uint8) + np.arange(8, dtype='u1'))
    write(mfnet / 'labels' / '00001D.png', np.full(SIZE, 9, np.uint8))  # the same frame
    (mfnet / 'labels' / '00002N.png').write_bytes(b'not an image')
    (mfnet / 'rgb' / '00003N.png').unlink()
    (mfnet / 'val.txt').write_text('00004D\n00004D\n')
    write(mfnet / 'rgb' / '00009D.png', random_images(9, 9)[0])
    report = check('mfnet', mfnet)
    faults, _ = findings(report)
    assert set(faults) == {
        'thermal/00001D.png',
        'labels/00001D.png',
        'labels/00002N.png',
        'rgb/00003N.png',
        'mfnet/val.txt',
    }
    assert 'is 8x5, but' in faults['thermal/00001D.png']
    assert 'has the class id 9' in faults['labels/00001D.png']
    assert 'cannot be read as an image' in faults['labels/00002N.png']
    assert 'does not exist' in faults['rgb/00003N.png']
    assert 'more than once' in faults['mfnet/val.txt']
    # A frame that two lists name is unusable in both, and its fault is one.
    assert [report.splits[name].unusable for name in ('train', 'train_day')] == [3, 1]
    assert report.unpaired == ['00003N', '00009D']
    names = {Path(path).name for path in report.unlisted}
    assert names == {'00004D.png', '00009D.png'}  # val.txt cannot be used, so it names none


def test_warnings(mfnet):
    thermal = random_images(5, 9)[1]
    write(mfnet / 'thermal' / '00001D.png', np.full(SIZE, 7, np.uint8))
    write(mfnet / 'rgb' / '00002N.png', np.dstack([thermal] * 3))
    write(mfnet / 'thermal' / '00002N.png', thermal)
    write(mfnet / 'labels' / '00002N.png', np.full(SIZE, 255, np.uint8))
    shutil.copy(mfnet / 'rgb' / '00003N.png', mfnet / 'rgb' / '00004D.png')
    (mfnet / 'val.txt').write_text('00004D\n00001D\n')
    report = check('mfnet', mfnet)
    assert not report.faults
    found = {(Path(file).name, what) for file, what in report.warnings}
    assert {what for name, what in found if name == '00001D'} == {'thermal is constant (7)'}
    assert {what for name, what in found if name == '00002N'} == {
        'RGB and thermal are the same image',
        'no pixel is labelled',
    }
    leakage = (
        '1 of its 2 frames share an image (RGB) with frames of train, such as val/00004D with '
        'train/00003N: leakage'
    )
    assert ('val', leakage) in found
    assert ('val.txt', 'names 00001D, which train.txt has: leakage') in found
    assert {name for name, _ in found} == {'00001D', '00002N', 'val', 'val.txt'}


@pytest.mark.parametrize('suffix', ['png', 'jpg'])
def test_exchanged_rgb_and_thermal_are_reported(mfnet, suffix):
    images = {'rgb': f'rgb/{{stem}}.{suffix}', 'thermal': f'thermal/{{stem}}.{suffix}'}
    for seed, stem in enumerate(TRAIN + VAL):
        color, grey, _ = random_images(seed, 9)
        write(mfnet / 'rgb' / f'{stem}.{suffix}', grey)
        write(mfnet / 'thermal' / f'{stem}.{suffix}', color)
    warnings = check('folder', declare(mfnet, images=images)).warnings
    assert [split for split, _ in warnings] == ['train', 'val']
    assert all(what.endswith('are they exchanged?') for _, what in warnings)
    # Some photographs are grey, and some thermal images are stored in three equal channels.
    for path in (mfnet / 'rgb' / TRAIN[0], mfnet / 'thermal' / VAL[0]):
        color, grey, _ = random_images(9, 9)
        image = color if path.parent.name == 'rgb' else np.dstack([grey] * 3)
        write(path.with_suffix(f'.{suffix}'), image)
    warnings = check('folder', declare(mfnet, images=images)).warnings
    assert [split for split, _ in warnings] == ['train']  # of val, thermal has no colours now
    assert not any('exchanged' in what for _, what in warnings)


def test_thermal_in_false_colours_is_reported(mfnet):
    for stem in TRAIN[:2]:
        path = mfnet / 'thermal' / f'{stem}.png'
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        write(path, cv2.applyColorMap(grey, cv2.COLORMAP_JET))
    for report in (check('mfnet', mfnet, 'train'), check('folder', declare(mfnet))):
        assert not report.faults
        ((split, what),) = report.warnings
        assert split == 'train'
        assert what.startswith('the files of 2 thermal images have colours')
    # RGB of which the colours are kept is no such image.
    for stem in TRAIN:
        shutil.copy(mfnet / 'rgb' / f'{stem}.png', mfnet / 'thermal' / f'{stem}.png')
    images = {'rgb': 'rgb/{stem}.png', 'event': 'thermal/{stem}.png'}
    warnings = check('folder', declare(mfnet, images=images), 'train').warnings
    assert {what for _, what in warnings} == {'RGB and event are the same image'}


def test_classes_that_harm_training_are_reported(mfnet):
    """A class of most pixels that is drawn as an object, and classes that do not occur."""
    ids = np.zeros(SIZE, np.uint8)
    ids[:2] = 1
    ids[2] = 255  # 24 of the 40 labelled pixels are 0
    for stem in TRAIN:
        write(mfnet / 'labels' / f'{stem}.png', ids)
    names = ['ground', 'car', 'person', 'cone']
    path = declare(mfnet, label_space={'names': names})
    report = check('folder', path, 'train')
    assert not report.faults
    whole, absent = sorted((what for _, what in report.warnings), key=len, reverse=True)
    assert absent == 'has no pixel of person, cone, which cannot be learned'
    assert whole.startswith('60 % of the labelled pixels are ground, and background_id is null')
    assert whole.endswith('set background_id: 0')
    path = declare(mfnet, label_space={'names': names[:2], 'background_id': 0})
    assert not check('folder', path, 'train').warnings


def test_masks_of_0_and_255_are_reported(mfnet):
    mask = (random_images(0, 2)[2] * 255).astype(np.uint8)
    for stem in VAL:
        write(mfnet / 'labels' / f'{stem}.png', mask)
    report = check('mfnet', mfnet)
    assert not report.faults
    ((where, what),) = report.warnings
    assert where == 'val'
    assert 'all labels are 0 or 255' in what
    assert 'write 1 in place of 255' in what
    # A frame of background with unlabelled pixels is normal beside frames of other classes.
    write(mfnet / 'labels' / f'{TRAIN[0]}.png', mask)
    assert len(check('mfnet', mfnet, 'train').warnings) == 0


def save_palette(path: Path, ids: np.ndarray, colors: list[tuple[int, int, int]]) -> None:
    image = Image.fromarray(ids)
    image.putpalette([value for color in colors for value in color])
    image.save(path)


def test_palettes_that_differ_are_reported(mfnet):
    colors = [(label * 20, 0, 255 - label) for label in range(9)]
    ids = {stem: random_images(seed, 9)[2] for seed, stem in enumerate(TRAIN + VAL)}
    for stem in ids:
        save_palette(mfnet / 'labels' / f'{stem}.png', ids[stem], colors)
    assert not check('mfnet', mfnet).warnings
    # Colours of ids that a file does not use do not matter.
    save_palette(
        mfnet / 'labels' / '00002N.png', np.full(SIZE, 1, np.uint8), [(9, 9, 9), colors[1]]
    )
    assert not check('mfnet', mfnet).warnings
    save_palette(mfnet / 'labels' / '00003N.png', ids['00003N'], [*colors[1:], colors[0]])
    report = check('mfnet', mfnet)
    assert not report.faults
    _, warnings = findings(report)
    assert list(warnings) == ['labels/00003N.png']
    assert 'labels/00001D.png' in warnings['labels/00003N.png']
    assert 'save all label images with the same palette' in warnings['labels/00003N.png']


def declare(root: Path, **values) -> Path:
    """Declare what is in the folders of an MFNet as own frames."""
    path = root / 'data.yaml'
    images = {'rgb': 'rgb/{stem}.png', 'thermal': 'thermal/{stem}.png'}
    splits = {'train': list(TRAIN), 'val': list(VAL)}
    labels = 'labels/{stem}.png'
    values = {'label_space': 'mfnet', 'images': images, 'labels': labels, 'splits': splits} | values
    path.write_text(yaml.safe_dump(values))
    return path


def test_palettes_of_raw_ids_that_differ_are_reported(mfnet):
    """As data init declares them: each value of the files with its class."""
    colors = [(label * 20, 0, 255 - label) for label in range(9)]
    for seed, stem in enumerate(TRAIN + VAL):
        save_palette(mfnet / 'labels' / f'{stem}.png', random_images(seed, 9)[2], colors)
    label_map = {8 - id_: name for id_, name in enumerate(MFNET.classes)}
    path = declare(mfnet, label_map=label_map)
    assert not check('folder', path).warnings
    swapped = [*colors[:3], colors[4], colors[3], *colors[5:]]
    save_palette(mfnet / 'labels' / f'{VAL[0]}.png', random_images(3, 9)[2], swapped)
    _, warnings = findings(check('folder', path))
    (what,) = warnings.values()
    assert f'the colour {colors[4]} for the id 3, and that of' in what
    # The colours of a label map are what they are, wherever the palette has them.
    of_colors = (bytes(color).hex() for color in colors)
    by_color = {f'#{key}': name for key, name in zip(of_colors, MFNET.classes, strict=True)}
    assert not check('folder', declare(mfnet, label_map=by_color)).warnings


def test_labels_may_be_arrays(mfnet):
    for seed, stem in enumerate(TRAIN + VAL):
        np.save(mfnet / 'labels' / f'{stem}.npy', random_images(seed, 9)[2])
    report = check('folder', declare(mfnet, labels='labels/{stem}.npy'))
    assert not report.faults
    assert not report.warnings


def test_an_event_image_may_be_uniform(mfnet):
    for stem in TRAIN + VAL:
        write(mfnet / 'event' / f'{stem}.png', np.full((*SIZE, 3), 255, np.uint8))
    images = {'rgb': 'rgb/{stem}.png', 'event': 'event/{stem}.png'}
    assert not check('folder', declare(mfnet, images=images)).warnings


def test_leakage_is_a_line_for_two_splits_and_none_for_a_split_of_both(mfnet):
    every = [*TRAIN, *VAL]
    splits = {'train': every[:2], 'val': every[2:], 'trainval': every}
    assert not check('folder', declare(mfnet, splits=splits)).warnings
    # A list of training that has more than the frames of the validation is no such split.
    splits = {'train': every[1:], 'val': every[2:]}
    ((split, what),) = check('folder', declare(mfnet, splits=splits)).warnings
    assert split == 'val'
    assert what == (
        '2 of its 2 frames share an image (RGB, thermal) with frames of train, such as '
        'val/00003N with train/00003N: leakage'
    )


def test_the_official_layout_with_thermal_in_alpha(mfnet):
    apart = check('mfnet', mfnet).to_dict()
    for stem in TRAIN + VAL:
        rgb, thermal = (cv2.imread(str(mfnet / p / f'{stem}.png'), -1) for p in ('rgb', 'thermal'))
        write(mfnet / 'images' / f'{stem}.png', np.dstack((rgb, thermal)))
    shutil.rmtree(mfnet / 'rgb')
    shutil.rmtree(mfnet / 'thermal')
    assert check('mfnet', mfnet).to_dict() == apart
    write(mfnet / 'images' / '00001D.png', random_images(0, 9)[0])
    faults, _ = findings(check('mfnet', mfnet, 'train_day'))
    assert 'expected RGBA' in faults['images/00001D.png']


def test_splits_in_folders(fmb):
    report = check('fmb', fmb)
    assert not report.faults
    assert not report.warnings
    assert report.label_space is FMB
    assert {name: split.frames for name, split in report.splits.items()} == {'train': 2, 'test': 1}
    shutil.copy(fmb / 'train' / 'Visible' / 'a.png', fmb / 'test' / 'Visible' / 'a.png')
    (fmb / 'train' / 'Infrared' / 'b.png').unlink()
    write(fmb / 'train' / 'Label' / 'a.png', np.full(SIZE, 15, np.uint8))
    shutil.rmtree(fmb / 'test' / 'Label')
    report = check('fmb', fmb)
    faults, warnings = findings(report)
    assert set(faults) == {'Infrared/b', 'Label/a.png', 'test/Label'}
    assert 'is missing' in faults['Infrared/b']
    assert 'class id 15' in faults['Label/a.png']
    assert 'does not exist' in faults['test/Label']
    assert report.unpaired == ['b']
    # Splits come by name: test was read first.
    assert warnings == {
        'train': '1 of its 2 frames share an image (RGB) with frames of test, such as train/a '
        'with test/a: leakage'
    }


def test_exit_status_and_json(mfnet, capsys):
    arguments = ['data', 'check', '--dataset', 'mfnet', '--root', str(mfnet)]
    assert main(arguments) == 0
    assert capsys.readouterr().out.endswith(
        '0 faults, 0 warnings, 0 unpaired stems, 0 files in no split\n'
    )
    bad = mfnet / 'labels' / '00004D.png'
    bad.write_bytes(b'')
    out = mfnet.parent / 'found.json'
    assert main([*arguments, '--split', 'val', '--json', str(out)]) == 2
    assert f'fault: {bad}: cannot be read' in capsys.readouterr().out
    (fault,) = json.loads(out.read_text())['faults']
    assert fault['file'] == str(bad)
    assert fault['fault'].startswith('cannot be read as an image')
    for wrong in (['--split', 'holdout'], ['--root', str(mfnet / 'rgb')]):
        assert main([*arguments, *wrong]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_folders_that_are_not_the_data_set(tmp_path, mfnet):
    with pytest.raises(SartmError, match='needs its folder'):
        check('mfnet', None)
    with pytest.raises(SartmError, match='no folder with Visible, Infrared, Label'):
        check('fmb', tmp_path)
    with pytest.raises(SartmError, match=r'nightly\.txt does not exist; the splits'):
        check('mfnet', mfnet, 'nightly')
    for path in mfnet.glob('[tv]*.txt'):
        path.unlink()
    with pytest.raises(SartmError, match='no list train'):
        check('mfnet', mfnet)


def test_synthetic_scenes_have_no_faults(monkeypatch):
    from sartm_model.data.synthetic import SPLITS

    monkeypatch.setitem(SPLITS, 'test', (2, 2))
    report = check('synthetic', None, 'test')
    assert not report.faults
    assert not report.warnings
    assert report.splits['test'].sizes == {'640x480': 2}


def test_real_frames_have_no_faults(real_data):
    report = check('mfnet', real_data / 'mfnet', 'val')
    assert not report.faults
    assert report.splits['val'].conditions == {'day': 25, 'night': 25}
