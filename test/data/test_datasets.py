"""The layouts of the data sets, and that each fault names the file and what is wrong."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from sartm_model.data.file_frames import FolderFrames
from sartm_model.data.frame_list import check_stems
from sartm_model.data.mfnet import condition_of
from sartm_model.data.registry import open_dataset
from sartm_model.errors import SartmError
from sartm_model.labels import FMB, MFNET, PST900
from sartm_model.modalities import MODALITIES
from sartm_model.utils.image_io import read_labels, read_rgb

read_thermal = MODALITIES['thermal'].read

rng = np.random.default_rng(0)
RGB = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
THERMAL = rng.integers(0, 256, (6, 8)).astype(np.uint8)
COUNTS = rng.integers(0, 1 << 14, (6, 8)).astype(np.uint16)
LABELS = rng.integers(0, 5, (6, 8)).astype(np.uint8)


def write(path: Path, image: np.ndarray) -> Path:
    """Write with OpenCV, which the code under test does not use."""
    path.parent.mkdir(parents=True, exist_ok=True)
    order = {2: lambda i: i, 3: lambda i: i[..., [2, 1, 0, 3][: i.shape[-1]]]}
    assert cv2.imwrite(str(path), np.ascontiguousarray(order[image.ndim](image)))
    return path


def folder_frames(rgb, thermal, labels=None, **settings) -> FolderFrames:
    return FolderFrames({'rgb': rgb, 'thermal': thermal}, labels, **settings)


def mfnet(root: Path, stems=('00001D', '00002N'), rgba: bool = False) -> Path:
    for stem in stems:
        if rgba:
            write(root / 'images' / f'{stem}.png', np.dstack((RGB, THERMAL)))
        else:
            write(root / 'rgb' / f'{stem}.png', RGB)
            write(root / 'thermal' / f'{stem}.png', THERMAL)
        write(root / 'labels' / f'{stem}.png', LABELS)
    (root / 'val.txt').write_text('\n'.join(stems) + '\n')
    return root


@pytest.mark.parametrize('rgba', [False, True])
def test_mfnet_in_both_layouts(tmp_path, rgba):
    frames = open_dataset('mfnet', mfnet(tmp_path, rgba=rgba), 'val')
    assert len(frames) == 2
    assert frames.label_space is MFNET
    assert frames.names == [frame.name for frame in frames] == ['00001D', '00002N']
    assert [frame.condition for frame in frames] == ['day', 'night']
    for frame in frames:
        assert np.array_equal(frame.rgb, RGB)
        assert np.array_equal(frame.thermal, THERMAL)
        assert np.array_equal(frame.labels, LABELS)
    assert np.array_equal(frames.with_modalities(('thermal',))[0].thermal, THERMAL)


@pytest.mark.parametrize(
    ('name', 'space', 'folders', 'thermal', 'expected'),
    [
        ('pst900', PST900, ('rgb', 'thermal', 'labels'), THERMAL, THERMAL),
        ('pst900', PST900, ('rgb', 'thermal', 'labels'), COUNTS, COUNTS),
        ('fmb', FMB, ('Visible', 'Infrared', 'Label'), THERMAL, THERMAL),
        ('fmb', FMB, ('Visible', 'Infrared', 'Label'), np.dstack([THERMAL] * 3), THERMAL),
    ],
)
def test_pst900_and_fmb(tmp_path, name, space, folders, thermal, expected):
    for split, stems in (('train', 'ab'), ('test', 'c')):
        for stem in stems:
            for folder, image in zip(folders, (RGB, thermal, LABELS), strict=True):
                write(tmp_path / split / folder / f'{stem}.png', image)
    frames = open_dataset(name, tmp_path, 'train')
    assert frames.names == ['a', 'b']
    assert frames.label_space is space
    assert np.array_equal(frames[1].rgb, RGB)
    assert np.array_equal(frames[1].thermal, expected)
    assert frames[1].thermal.dtype == expected.dtype
    assert np.array_equal(frames[1].labels, LABELS)
    assert frames[1].condition is None
    assert open_dataset(name, tmp_path, 'test').names == ['c']
    with pytest.raises(SartmError, match=r'val does not exist.*test, train'):
        open_dataset(name, tmp_path, 'val')


@pytest.mark.parametrize(
    ('break_it', 'message'),
    [
        (lambda r: (r / 'val.txt').unlink(), r'val\.txt does not exist; the splits here are: none'),
        (lambda r: (r / 'val.txt').write_text(''), r'val\.txt is empty'),
        (lambda r: (r / 'val.txt').write_bytes(b'\xff\xfe\x00'), r'val\.txt cannot be read'),
        (lambda r: (r / 'val.txt').write_text('../x'), r'val\.txt has \.\./x; expected one stem'),
        (lambda r: (r / 'val.txt').write_text('00001D\n00001D'), '00001D more than once'),
        (
            lambda r: (r / 'thermal/00002N.png').unlink(),
            r'MFNet val in \S+ has no \S+thermal/00002N\.png',
        ),
        (
            lambda r: (r / 'labels/00001D.png').unlink(),
            r'MFNet val in \S+ has no \S+labels/00001D\.png',
        ),
    ],
)
def test_faults_found_when_mfnet_is_opened(tmp_path, break_it, message):
    break_it(mfnet(tmp_path))
    with pytest.raises(SartmError, match=message):
        open_dataset('mfnet', tmp_path, 'val')


@pytest.mark.parametrize(
    ('path', 'image', 'message'),
    [
        ('thermal', THERMAL[:4], r'thermal/00001D\.png is 8x4, but \S+rgb/00001D\.png is 8x6'),
        ('labels', LABELS[:, :7], r'labels/00001D\.png is 7x6, but \S+rgb/00001D\.png is 8x6'),
        ('labels', LABELS + 6, r'labels/00001D\.png has the class id 9, 10, but the 9 classes'),
        ('labels', np.dstack([LABELS] * 3), r'labels/00001D\.png is a 3-channel image; labels'),
        ('rgb', COUNTS, r'rgb/00001D\.png is a 16-bit or 32-bit one-channel image; RGB'),
    ],
)
def test_faults_found_when_a_frame_is_read(tmp_path, path, image, message):
    frames = open_dataset('mfnet', mfnet(tmp_path), 'val')
    write(tmp_path / path / '00001D.png', image)
    with pytest.raises(SartmError, match=message):
        frames[0]
    assert frames[1].name == '00002N'


@pytest.mark.parametrize('part', ['rgb', 'thermal', 'labels'])
def test_a_truncated_or_foreign_file_is_named(tmp_path, part):
    frames = open_dataset('mfnet', mfnet(tmp_path), 'val')
    path = tmp_path / part / '00001D.png'
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-30], b'', b'GIF? no'):
        path.write_bytes(content)
        with pytest.raises(SartmError, match=rf'{part}/00001D\.png cannot be read as an image'):
            frames[0]


def test_a_split_list_with_a_byte_order_mark_and_names_with_spaces(tmp_path):
    stems = ['frame 0001', 'frame 0002']
    root = mfnet(tmp_path, stems)
    (root / 'val.txt').write_bytes(b'\xef\xbb\xbfframe 0001\r\n\r\n  frame 0002.png \r\n')
    frames = open_dataset('mfnet', root, 'val')
    assert frames.names == stems
    assert np.array_equal(frames[1].thermal, THERMAL)


def save_turned(path: Path, image: np.ndarray, orientation: int) -> Path:
    """Save the pixels as a sensor gives them, with the EXIF orientation of the camera."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(path, exif=exif)
    return path


# What each EXIF orientation asks a viewer to do (EXIF 2.32, table 6).
UPRIGHT = {
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: np.swapaxes(image, 0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(np.swapaxes(image, 0, 1), 2),
    8: np.rot90,
}


@pytest.mark.parametrize('orientation', UPRIGHT)
def test_images_are_turned_upright(tmp_path, orientation):
    upright = UPRIGHT[orientation]
    rgb = save_turned(tmp_path / 'rgb.png', RGB, orientation)
    counts = save_turned(tmp_path / 'thermal.png', COUNTS, orientation)
    labels = save_turned(tmp_path / 'labels.png', LABELS, orientation)
    frame = folder_frames(rgb, counts, labels)[0]
    assert np.array_equal(frame.rgb, upright(RGB))
    assert np.array_equal(frame.thermal, upright(COUNTS))
    assert np.array_equal(frame.labels, upright(LABELS))
    rgba = save_turned(tmp_path / 'rgba.png', np.dstack((RGB, THERMAL)), orientation)
    frame = folder_frames(rgba, rgba)[0]
    assert np.array_equal(frame.rgb, upright(RGB))
    assert np.array_equal(frame.thermal, upright(THERMAL))


@pytest.mark.parametrize('compression', [None, 'tiff_lzw'])
def test_tiff_that_lies_aside_is_turned_upright(tmp_path, compression):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / 'image.tif'
    for pixels in (THERMAL, COUNTS):
        Image.fromarray(pixels).save(path, exif=exif, compression=compression)
        assert np.array_equal(read_thermal(path), np.rot90(pixels, -1))


def test_an_image_with_damaged_exif_is_read(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = 'robot'
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / 'image.webp'
    Image.fromarray(RGB).save(path, exif=exif, lossless=True)
    data = path.read_bytes()
    order = '<' if b'II*\0' in data else '>'
    text, number = (
        struct.pack(f'{order}HHI', ExifTags.Base.ImageDescription, kind, count)
        for kind, count in ((2, 6), (11, 1))
    )
    assert text in data
    path.write_bytes(data.replace(text, number))  # the text is said to be a floating-point number
    assert np.array_equal(read_rgb(path), np.rot90(RGB, -1))


def test_one_image_turned_and_another_not(tmp_path):
    rgb = save_turned(tmp_path / 'rgb.jpg', RGB, 6)
    labels = write(tmp_path / 'labels.png', LABELS)
    advice = r'labels\.png is 8x6.*rgb\.jpg is 6x8; rgb\.jpg was turned by 90 degrees.*EXIF'
    with pytest.raises(SartmError, match=advice):
        folder_frames(rgb, None, labels)[0]
    thermal = save_turned(tmp_path / 'thermal.png', THERMAL, 8)
    plain = write(tmp_path / 'plain.png', RGB)
    with pytest.raises(SartmError, match=r'thermal\.png was turned by 90 degrees'):
        folder_frames(plain, thermal, aligned=True)[0]


@pytest.mark.parametrize('suffix', ['png', 'tiff'])
@pytest.mark.parametrize('channels', [3, 4])
def test_16_bit_colour_is_never_cut_to_8_bits(tmp_path, suffix, channels):
    equal = write(tmp_path / f'equal.{suffix}', np.dstack([COUNTS] * channels))
    assert np.array_equal(read_thermal(equal), COUNTS)
    other = np.dstack([COUNTS] * channels)
    other[2, 3, 1] += 1
    different = write(tmp_path / f'different.{suffix}', other)
    with pytest.raises(SartmError, match=r'different\.\w+ is a 16-bit colour image whose channels'):
        read_thermal(different)
    for path in (equal, different):
        with pytest.raises(SartmError, match=r'16-bit colour image; expected 8 bits per channel'):
            read_rgb(path)


def test_16_bit_grey_in_colour_is_turned_upright(tmp_path):
    path = write(tmp_path / 'thermal.png', np.dstack([COUNTS] * 3))
    data = path.read_bytes()  # Pillow cannot write such a file, so the EXIF chunk is put in by hand
    exif = Image.Exif()
    exif[0x0112] = 6
    content = b'eXIf' + exif.tobytes().removeprefix(b'Exif\x00\x00')
    chunk = struct.pack('>I', len(content) - 4) + content + struct.pack('>I', zlib.crc32(content))
    path.write_bytes(data[:33] + chunk + data[33:])
    assert np.array_equal(read_thermal(path), np.rot90(COUNTS, -1))


def test_rgba_layout_needs_alpha(tmp_path):
    frames = open_dataset('mfnet', mfnet(tmp_path, rgba=True), 'val')
    write(tmp_path / 'images/00001D.png', RGB)
    with pytest.raises(SartmError, match=r'00001D\.png is a 3-channel image; expected RGBA'):
        frames[0]


def test_folders_are_matched_by_stem(tmp_path):
    for stem, suffix in (('00010N', '.png'), ('00002D', '.bmp'), ('frame', '.tiff')):
        write(tmp_path / 'rgb' / f'{stem}.png', RGB)
        write(tmp_path / 'thermal' / f'{stem}{suffix}', THERMAL)
    (tmp_path / 'rgb/notes.txt').write_text('no image')
    write(tmp_path / 'rgb/.hidden.png', RGB)
    frames = folder_frames(tmp_path / 'rgb', tmp_path / 'thermal')
    assert frames.names == ['00002D', '00010N', 'frame']
    assert [frame.condition for frame in frames] == [None, None, None]
    assert all(np.array_equal(frame.thermal, THERMAL) for frame in frames)
    assert all(frame.labels is None for frame in frames)
    alone = folder_frames(None, tmp_path / 'thermal')[0]
    assert alone.rgb is None
    assert np.array_equal(alone.thermal, THERMAL)


def test_single_files_need_no_common_stem(tmp_path):
    rgb, thermal = write(tmp_path / 'color.png', RGB), write(tmp_path / 'heat.png', COUNTS)
    frame = folder_frames(rgb, thermal)[0]
    assert frame.name == 'color'
    assert np.array_equal(frame.thermal, COUNTS)


def test_thermal_of_another_size_is_only_refused_in_aligned_sets(tmp_path):
    rgb = write(tmp_path / 'rgb/a.png', RGB).parent
    thermal = write(tmp_path / 'thermal/a.png', THERMAL[:3, :4]).parent
    assert folder_frames(rgb, thermal)[0].thermal.shape == (3, 4)
    labels = write(tmp_path / 'labels/a.png', LABELS[:3, :4]).parent
    with pytest.raises(SartmError, match=r'labels/a\.png is 4x3.*rgb/a\.png is 8x6'):
        folder_frames(rgb, thermal, labels)[0]


def test_unusable_folders_are_named(tmp_path):
    rgb = write(tmp_path / 'rgb/a.png', RGB).parent
    thermal = write(tmp_path / 'thermal/b.png', THERMAL).parent
    with pytest.raises(SartmError, match='rgb has no image for b'):
        folder_frames(rgb, thermal)
    for stem in 'cdefg':
        write(thermal / f'{stem}.png', THERMAL)
    with pytest.raises(SartmError, match='rgb has no image for b, c, d and 3 more'):
        folder_frames(rgb, thermal)
    with pytest.raises(SartmError, match='mix files with folders'):
        folder_frames(rgb, thermal / 'b.png')
    with pytest.raises(SartmError, match='nowhere does not exist'):
        folder_frames(rgb, tmp_path / 'nowhere')
    with pytest.raises(SartmError, match='give one or more of rgb, thermal'):
        folder_frames(None, None)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(SartmError, match='empty has no images'):
        folder_frames(tmp_path / 'empty', None)
    write(rgb / 'a.bmp', RGB)
    with pytest.raises(SartmError, match=r'both a\.bmp and a\.png'):
        folder_frames(rgb, None)


def test_unknown_names_and_roots(tmp_path):
    with pytest.raises(SartmError, match="called 'cityscapes'; choose one of mfnet, pst900"):
        open_dataset('cityscapes', tmp_path, 'train')
    with pytest.raises(SartmError, match='needs its folder as root'):
        open_dataset('mfnet', None, 'train')
    with pytest.raises(SartmError, match='is not a folder'):
        open_dataset('fmb', tmp_path / 'nowhere', 'train')
    with pytest.raises(SartmError, match='is not MFNet'):
        open_dataset('mfnet', tmp_path, 'train')


def test_pixels_of_every_kind_of_file(tmp_path):
    grey = write(tmp_path / 'grey.png', THERMAL)
    assert np.array_equal(read_rgb(grey), np.dstack([THERMAL] * 3))
    rgba = write(tmp_path / 'rgba.png', np.dstack((RGB, THERMAL)))
    assert np.array_equal(read_rgb(rgba), RGB)
    colour = write(tmp_path / 'colour.png', RGB)
    luma = RGB @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_thermal(colour) - luma).max() <= 1
    full = write(tmp_path / 'full.tiff', np.array([[0, 65535]], np.uint16))
    assert read_thermal(full).tolist() == [[0, 65535]]
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / 'float.tiff')
    with pytest.raises(SartmError, match='floating-point'):
        read_rgb(tmp_path / 'float.tiff')
    Image.fromarray(np.full((2, 2), 70000, np.int32)).save(tmp_path / 'wide.tiff')
    with pytest.raises(SartmError, match='beyond 16 bits'):
        read_thermal(tmp_path / 'wide.tiff')


def test_labels_are_ids_in_any_one_channel_file(tmp_path):
    ids = np.where(LABELS == 4, 255, LABELS).astype(np.uint8)
    grey = write(tmp_path / 'grey.png', ids)
    assert np.array_equal(read_labels(grey, 4), ids)
    with pytest.raises(SartmError, match=r'grey\.png has the class id 3, but the 3 classes'):
        read_labels(grey, 3)
    palette = Image.fromarray(ids, 'L').convert('P')
    palette.putdata(ids.ravel().tolist())
    palette.putpalette([(7 * i + c) % 256 for i in range(256) for c in range(3)])
    palette.save(tmp_path / 'palette.png')
    assert np.array_equal(read_labels(tmp_path / 'palette.png', 4), ids)
    deep = write(tmp_path / 'deep.png', ids.astype(np.uint16))
    assert np.array_equal(read_labels(deep, 4), ids)
    assert read_labels(deep, 4).dtype == np.uint8
    Image.fromarray(np.array([[-1, 2_000_000_000]], np.int32)).save(tmp_path / 'wild.tiff')
    with pytest.raises(SartmError, match='class id -1, 2000000000'):
        read_labels(tmp_path / 'wild.tiff', 4)


class CountedName(str):
    """A text that counts how often one is compared with another."""

    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        CountedName.comparisons += 1
        return super().__eq__(other)


def test_a_long_list_with_a_name_twice_is_read_in_one_pass():
    stems = [CountedName(f'{number:05d}') for number in (*range(2000), 7)]
    with pytest.raises(SartmError, match='a list names 00007 more than once'):
        check_stems(stems, 'a list')
    assert CountedName.comparisons < 10 * len(stems)


def test_conditions_by_name():
    names = ('00001D', '01577N', '00003D_flip', 'night', 'N', '12DN', '00001', 'DSC01N')
    expected = ['day', 'night', 'day', None, None, None, None, None]
    assert [condition_of(name) for name in names] == expected


def test_real_mfnet_frames(real_data):
    for split, length in (('train', 107), ('val', 50)):
        frames = open_dataset('mfnet', real_data / 'mfnet', split)
        assert len(frames) == length
        frame = frames[0]
        assert frame.rgb.shape == (480, 640, 3)
        assert frame.thermal.shape == frame.labels.shape == (480, 640)
        assert frame.labels.max() < 9
    night = [name for name in frames.names if condition_of(name) == 'night']
    assert len(night) == 25
