"""`sartm pseudo-label` by segments: what it writes, and that it can be interrupted and shared."""

from __future__ import annotations

import csv
import json
import shutil
import threading

import cv2
import numpy as np
import pytest
from command_line import expect_error, read, run
from processes import wait_until

from sartm_model.data.registry import open_dataset
from sartm_model.evaluation.contact_sheet import contact_sheet
from sartm_model.pseudo_labels import from_segments
from sartm_model.pseudo_labels.graph_segments import GraphSegments

NAMES = ('1', 'night__2', 'night__3', 'night__4')
SHAPE = (60, 80)
CORNERS = ((5, 10), (8, 45), (32, 6), (35, 50))  # of the warm rectangles, 16x20


@pytest.fixture
def drive(tmp_path):
    """Images of 8 and of 16 bits, each with warm rectangles, in a folder and in a folder in it."""
    rng = np.random.default_rng(0)
    root = tmp_path / 'drive'
    (root / 'night').mkdir(parents=True)
    for name in NAMES:
        image = rng.normal(60, 1, SHAPE)
        for top, left in CORNERS:
            image[top : top + 16, left : left + 20] += rng.integers(60, 150)
        is_16_bit = name == 'night__2'
        pixels = (image * (100 if is_16_bit else 1)).clip(0, 65535 if is_16_bit else 255)
        path = root / f'{name.replace("__", "/")}.png'
        assert cv2.imwrite(str(path), pixels.astype(np.uint16 if is_16_bit else np.uint8))
    return root


def label(images, out, *options) -> int:
    return run('pseudo-label', '--images', images, '--out', out, '--source', *options)


def content(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def test_the_result_is_a_data_set_of_the_images(tmp_path, drive, capsys):
    out = tmp_path / 'labels'
    assert label(drive, out, 'graph', '--scale', '30', '--min-size', '150', '--count', '8') == 0
    assert '4 images labelled, 0 were already, 0 left out' in capsys.readouterr().out
    dataset = open_dataset('folder', out / 'data.yaml', 'train')
    assert [frame.name for frame in dataset] == list(NAMES)
    assert dataset.label_space.classes == ('background', *(f'segment_{i}' for i in range(1, 9)))
    pixels = np.zeros(256, int)
    for frame in dataset:
        original = cv2.imread(
            str(drive / f'{frame.name.replace("__", "/")}.png'), cv2.IMREAD_UNCHANGED
        )
        np.testing.assert_array_equal(frame.images['thermal'], original)
        # The smoothing blurs the edges of the rectangles; within them each is one segment.
        within = [frame.labels[y + 3 : y + 13, x + 3 : x + 17] for y, x in CORNERS]
        assert all((labels == labels[0, 0]).all() for labels in within)
        assert len({labels[0, 0] for labels in within} - {0}) == 4
        assert frame.labels.max() <= 8
        pixels += np.bincount(frame.labels.ravel(), minlength=256)
    manifest = json.loads((out / 'manifest.json').read_text())
    assert manifest['images'] == manifest['labelled'] == 4
    assert list(manifest['pixels'].values()) == [*pixels[:9], pixels[255]]
    assert manifest['settings']['ranking'] == 'contrast'
    assert cv2.imread(str(out / 'sheet.png')) is not None
    assert run('data', 'check', '--dataset', 'folder', '--root', out / 'data.yaml') == 0


def test_flat_areas_of_a_reduced_image_are_one_graph_segment_each():
    """The first area in the order of numbers touches the third."""
    height, width = 480, 640
    areas = np.zeros((height, width), np.float32)
    areas[: height // 2, width // 2 :], areas[height // 2 :, width // 2 :] = 1, 2
    segments = GraphSegments(sigma=0.01)(areas / 2, 'areas')
    assert len(segments) == 3
    for area, segment in enumerate(segments):
        mask = np.zeros((height, width), bool)
        mask[segment.box] = segment.mask
        np.testing.assert_array_equal(mask, areas == area)


def test_a_run_goes_on_where_it_was_and_refuses_other_settings(tmp_path, drive, capsys):
    out = tmp_path / 'labels'
    label(drive, out, 'graph')
    whole = content(out)
    (out / 'labels' / 'night__3.png').unlink()
    (out / 'train.txt').unlink()
    capsys.readouterr()
    assert label(drive, out, 'graph') == 0
    shown = capsys.readouterr()
    assert '1 images labelled, 3 were already' in shown.out
    assert content(out) == whole
    assert label(drive, out, 'graph', '--scale', '100') == 2
    assert 'of other settings (scale was 300.0 and is now 100.0)' in capsys.readouterr().err
    assert label(drive, drive, 'graph') == 2
    assert 'has other files in it' in capsys.readouterr().err
    assert content(out) == whole


def test_colored_images_are_counted(tmp_path, drive, capsys):
    """Files of three equal channels are grey."""
    grey = cv2.imread(str(drive / '1.png'))
    assert grey.ndim == 3
    cv2.imwrite(str(drive / 'night' / '2b.jpg'), grey)
    assert label(drive, tmp_path / 'grey', 'graph') == 0
    assert 'have colours' not in capsys.readouterr().out
    for name in ('a', 'b'):
        cv2.imwrite(str(drive / f'{name}.jpg'), grey * np.array([1, 0.9, 0.7]))
    assert label(drive, tmp_path / 'colored', 'graph') == 0
    assert '2 of the images labelled have colours: are they RGB?' in capsys.readouterr().out


def test_names_with_dots_and_brackets_and_a_result_among_the_images(tmp_path):
    drive = tmp_path / 'drive'
    drive.mkdir()
    names = ['a', 'a.b', 'a.jpg', 'a[1]']
    for name in names:
        cv2.imwrite(str(drive / f'{name}.png'), np.eye(40, dtype=np.uint8) * 200)
    for _ in range(2):  # the second run does not take the results of the first for images
        assert label(drive, drive / 'labels', 'graph') == 0
        frames = open_dataset('folder', drive / 'labels' / 'data.yaml', 'train')
        assert frames.names == names
    manifest = json.loads((drive / 'labels' / 'manifest.json').read_text())
    assert manifest['images'] == 4


def test_shards_make_what_one_run_makes(tmp_path, drive):
    label(drive, tmp_path / 'one', 'graph')
    for shard in ('2/3', '1/3', '3/3'):
        assert label(drive, tmp_path / 'three', 'graph', '--shard', shard) == 0
    assert content(tmp_path / 'three') == content(tmp_path / 'one')


def test_a_run_that_ends_describes_the_folder_once_while_others_label(tmp_path, drive, monkeypatch):
    out, drawn = tmp_path / 'labels', []

    def while_others_label(*given):
        drawn.append(given)
        if len(drawn) < 4:
            shutil.copy(out / 'labels' / '1.png', out / 'labels' / f'other_{len(drawn)}.png')
        return contact_sheet(*given)

    monkeypatch.setattr(from_segments, 'contact_sheet', while_others_label)
    assert label(drive, out, 'graph') == 0
    assert len(drawn) == 1


def test_a_run_that_ends_while_another_describes_has_the_last_word(tmp_path, drive, monkeypatch):
    out, main_thread = tmp_path / 'labels', threading.current_thread()
    other = threading.Thread(target=label, args=(drive, out, 'graph', '--shard', '2/2'))

    def while_another_ends(*given):
        if threading.current_thread() is main_thread:
            other.start()
            wait_until(
                lambda: len(list((out / 'labels').glob('[!.]*.png'))) == len(NAMES), 'labels'
            )
            other.join(timeout=0.5)  # it would end here if it did not wait for this run
        return contact_sheet(*given)

    monkeypatch.setattr(from_segments, 'contact_sheet', while_another_ends)
    assert label(drive, out, 'graph', '--shard', '1/2') == 0
    other.join()
    assert (out / 'train.txt').read_text().split() == list(NAMES)
    assert json.loads((out / 'manifest.json').read_text())['labelled'] == len(NAMES)


def test_an_image_that_cannot_be_read_is_left_out(tmp_path, drive, capsys):
    (drive / 'night' / '0.png').write_bytes(b'no image')
    out = tmp_path / 'labels'
    assert label(drive, out, 'graph') == 1
    shown = capsys.readouterr()
    assert '1 left out' in shown.out
    assert 'night__0 is left out' in shown.err
    assert 'cannot be read as an image' in shown.err
    assert (out / 'train.txt').read_text().split() == list(NAMES)
    manifest = json.loads((out / 'manifest.json').read_text())
    assert (manifest['images'], manifest['labelled']) == (5, 4)


def test_a_border_that_sees_nothing_is_not_labelled(tmp_path, drive):
    path = drive / '1.png'
    image = read(path)
    image[:4], image[-4:], image[:, :4], image[:, -4:] = 0, 0, 0, 0
    cv2.imwrite(str(path), image)
    assert label(drive, tmp_path / 'labels', 'graph', '--scale', '30', '--min-size', '150') == 0
    labels = read(tmp_path / 'labels' / 'labels' / '1.png')
    ignored = labels == 255
    assert ignored[:4].all()
    assert ignored[:, -4:].all()
    assert not ignored[8:-8, 8:-8].any()
    within = [labels[y + 3 : y + 13, x + 3 : x + 17] for y, x in CORNERS[1:]]
    assert all((part == part[0, 0]).all() and part[0, 0] > 0 for part in within)


def test_a_bag_gives_what_its_images_give(tmp_path, drive):
    thermal = tmp_path / 'thermal'
    thermal.mkdir()
    for path in drive.rglob('*.png'):
        shutil.copy(path, thermal / path.name)
    rgb = tmp_path / 'rgb'
    rgb.mkdir()
    for path in thermal.iterdir():
        cv2.imwrite(str(rgb / path.name), np.zeros((*SHAPE, 3), np.uint8))
    bag = tmp_path / 'bag'
    assert run('make-bag', '--rgb', rgb, '--thermal', thermal, '--out', bag) == 0
    assert label(thermal, tmp_path / 'by_files', 'graph') == 0
    for shard in ('1/2', '2/2'):
        assert label(bag, tmp_path / 'by_bag', 'graph', '--shard', shard) == 0
    frames = [
        list(open_dataset('folder', tmp_path / name / 'data.yaml', 'train'))
        for name in ('by_files', 'by_bag')
    ]
    assert [frame.name for frame in frames[1]] == [f'bag_00000{i}' for i in range(4)]
    for of_file, of_bag in zip(*frames, strict=True):
        np.testing.assert_array_equal(of_file.images['thermal'], of_bag.images['thermal'])
        np.testing.assert_array_equal(of_file.labels, of_bag.labels)


@pytest.mark.parametrize('has_table', [True, False])
def test_masks_as_sam_s_script_writes_them(tmp_path, drive, has_table):
    rng = np.random.default_rng(1)
    scores = rng.permutation(12) / 12
    masks = {name: rng.random((12, *SHAPE)) < 0.05 for name in NAMES}
    for name, of_image in masks.items():
        folder = tmp_path / 'sam' / name
        folder.mkdir(parents=True)
        for number, mask in enumerate(of_image):
            assert cv2.imwrite(str(folder / f'{number}.png'), mask.astype(np.uint8) * 255)
        if has_table:
            with (folder / 'metadata.csv').open('w', newline='') as file:
                table = csv.writer(file)
                table.writerow(['id', 'area', 'predicted_iou', 'stability_score'])
                table.writerows([i, 0, score, 0.9] for i, score in enumerate(scores))
    out = tmp_path / 'labels'
    assert label(drive, out, 'masks', '--masks', tmp_path / 'sam', '--preset', 'paper') == 0
    order = np.argsort(-scores) if has_table else np.arange(12)
    for name, of_image in masks.items():
        expected = np.zeros(SHAPE, np.uint8)
        for number, index in enumerate(order[:9], start=1):
            expected[of_image[index]] = number
        np.testing.assert_array_equal(read(out / 'labels' / f'{name}.png'), expected)


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        ('--source graph', 'needs --images'),
        ('--source network', 'needs --dataset and --split'),
        ('--source network --images DRIVE', 'has no --images'),
        ('--source graph --images DRIVE --masks x --split all', 'has no --split, --masks'),
        (
            '--source graph --images DRIVE --scales 2 --precision fp16',
            'has no --precision, --scales',
        ),
        ('--source masks --images DRIVE --masks x --device cpu', 'has no --device'),
        ('--source sam2 --images DRIVE --precision fp16', 'has no --precision'),
        (
            '--source graph --images DRIVE --preset paper',
            'no predicted_iou; rank them by area or',
        ),
        ('--source graph --images DRIVE --preset paper --count 3', 'preset paper decides --count'),
        ('--source graph --images DRIVE --shard 4/3', 'expected a number from 1 to 3'),
        ('--source graph --images DRIVE --shard all', 'expected a number of all of them'),
        ('--source graph --images DRIVE --topic /t', '--topic needs a bag'),
        ('--source graph --images DRIVE/nowhere', 'is no folder'),
        ('--source graph --images DRIVE --scale 0', 'scale is 0.0; expected more than 0'),
        ('--source masks --images DRIVE', 'needs --masks'),
        ('--source masks --images DRIVE --masks DRIVE/none', 'none does not exist'),
        ('--source sam2 --images DRIVE', 'needs --checkpoint'),
        ('--source sam2 --images DRIVE --checkpoint DRIVE/none.pt', 'no SAM2 checkpoint'),
    ],
)
def test_bad_options(tmp_path, drive, capsys, options, match):
    words = options.replace('DRIVE', str(drive)).split()
    out = tmp_path / 'labels'
    assert match in expect_error(capsys, out, 'pseudo-label', *words, '--out', out)


def test_masks_of_none_of_the_images(tmp_path, drive, capsys):
    assert label(drive, tmp_path / 'labels', 'masks', '--masks', drive) == 2
    assert 'none of 4 images could be labelled' in capsys.readouterr().err
