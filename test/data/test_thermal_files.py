"""Thermal files of temperatures and of signed counts, and radiometric JPEG of FLIR."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sartm_model.cli.main import main
from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_model.utils.image_io import read_rgb

SIZE = (60, 80)
R1, R2, B, F, OFFSET = 21106.77, 0.012545258, 1501.0, 1.0, -7340  # of a FLIR camera

read = MODALITIES['thermal'].read


def temperatures_c() -> np.ndarray:
    """A cold half, a warm half and a hot spot."""
    celsius = np.random.default_rng(0).uniform(-10, 0, SIZE)
    celsius[:, 40:] += 20
    celsius[5:9, 50:54] = 120
    return celsius


def flir_jpeg(kelvin: np.ndarray, orientation: int = 1) -> bytes:
    """Return a JPEG with the counts of these temperatures as a FLIR camera stores them.

    The layout is that of ExifTool's documentation of FLIR's tags. The object is a black body close
    to the lens, so that the counts follow from Planck's law alone.
    """
    counts = np.rint(R1 / (R2 * (np.exp(B / kelvin) - F)) - OFFSET).astype('<u2')
    raw = struct.pack('<3H', 2, counts.shape[1], counts.shape[0]).ljust(32, b'\0')
    raw += counts.tobytes()
    info = bytearray(900)
    # Emissivity, distance; temperatures reflected, of the air and of the window; transmission.
    struct.pack_into('<6f', info, 32, 1.0, 0.0, 293.15, 293.15, 293.15, 1.0)
    struct.pack_into('<f', info, 60, 0.5)  # humidity
    struct.pack_into('<3f', info, 88, R1, B, F)
    struct.pack_into('<5f', info, 112, 0.006569, 0.01262, -0.002276, -0.00667, 1.9)
    struct.pack_into('<if', info, 776, OFFSET, R2)

    records, directory, offset = b'', b'', 64 + 14 * 32
    for kind, content in ((1, raw), (32, bytes(info))):
        place = offset + len(records)
        directory += struct.pack('>2H3I', kind, 2, 100, 1, place)
        directory += struct.pack('>4I', len(content), 0, 0, 0)
        records += content
    header = b'FFF\0' + b'TEST'.ljust(16, b'\0') + struct.pack('>4I', 100, 64, 14, 2)
    content = header.ljust(64, b'\0') + directory.ljust(14 * 32, b'\0') + records

    step = 6000
    parts = [content[at : at + step] for at in range(0, len(content), step)]
    segments = b''
    for number, part in enumerate(parts):
        body = b'FLIR\0\x01' + bytes([number, len(parts) - 1]) + part
        segments += b'\xff\xe1' + struct.pack('>H', len(body) + 2) + body
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.new('RGB', (2 * SIZE[1], 2 * SIZE[0]), (200, 40, 90)).save(file, 'JPEG', exif=exif)
    return file.getvalue()[:2] + segments + file.getvalue()[2:]


def signed_tiff(counts: np.ndarray, orientation: int) -> bytes:
    """Return an uncompressed TIFF of int16, which Pillow cannot write with an orientation."""
    height, width = counts.shape
    long, short = 4, 3
    tags = [
        *((256, long, width), (257, long, height), (258, short, 16), (259, short, 1)),
        *((262, short, 1), (273, long, 8), (274, short, orientation), (277, short, 1)),
        *((278, long, height), (279, long, counts.nbytes), (339, short, 2)),
    ]
    directory = struct.pack('<H', len(tags))
    directory += b''.join(struct.pack('<2H2I', tag, kind, 1, value) for tag, kind, value in tags)
    head = b'II' + struct.pack('<HI', 42, 8 + counts.nbytes)
    return head + counts.astype('<i2').tobytes() + directory + bytes(4)


@pytest.mark.parametrize('zero_k', [0.0, 273.15], ids=['celsius', 'kelvin'])
@pytest.mark.parametrize('write', ['opencv', 'pillow'])
def test_a_floating_point_tiff_holds_temperatures(tmp_path, zero_k, write):
    celsius = temperatures_c()
    values = (celsius + zero_k).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    path = tmp_path / 'x.tiff'
    if write == 'opencv':  # compressed, with a predictor
        assert cv2.imwrite(str(path), values)
    else:
        Image.fromarray(values).save(path)
    found = read(path)
    assert found.dtype == np.uint16
    assert found[0, :3].tolist() == [0, 0, 0]
    difference = found / 100 - 273.15 - celsius
    difference[0, :3] = 0
    assert np.abs(difference).max() < 0.0052


@pytest.mark.parametrize('low', [-2000, 100])
def test_a_signed_tiff_has_one_offset_whatever_its_counts(tmp_path, low):
    counts = np.random.default_rng(1).integers(low, 3000, SIZE).astype(np.int16)
    assert cv2.imwrite(str(tmp_path / 'x.tif'), counts)
    found = read(tmp_path / 'x.tif')
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found.astype(int), counts.astype(int) + 32768)


def test_a_tiff_of_32_bit_integers_keeps_its_counts(tmp_path):
    counts = np.array([[0, 70], [65535, 3]], np.int32)
    Image.fromarray(counts).save(tmp_path / 'x.tif')
    np.testing.assert_array_equal(read(tmp_path / 'x.tif'), counts)
    Image.fromarray(counts - 1).save(tmp_path / 'y.tif')
    with pytest.raises(SartmError, match='beyond 16 bits'):
        read(tmp_path / 'y.tif')


def test_a_tiff_of_64_bits_says_what_is_read(tmp_path):
    assert cv2.imwrite(str(tmp_path / 'x.tif'), np.zeros((4, 4)))
    with pytest.raises(SartmError, match=r'cannot be read .* Of those 32 bits are read'):
        read(tmp_path / 'x.tif')


@pytest.mark.parametrize('kind', ['float', 'signed', 'flir'])
def test_they_are_turned_upright(tmp_path, kind):
    """Orientation 6: the first row of the file is the right column of the upright image."""
    celsius = temperatures_c()
    path = tmp_path / ('x.jpg' if kind == 'flir' else 'x.tif')
    if kind == 'flir':
        pytest.importorskip('flyr', reason='needs flyr')
        upright, turned = flir_jpeg(celsius + 273.15), flir_jpeg(celsius + 273.15, 6)
        path.write_bytes(upright)
        expected = np.rot90(read(path), -1)
        path.write_bytes(turned)
    elif kind == 'float':
        Image.fromarray(celsius.astype(np.float32)).save(path, tiffinfo={274: 6})
        expected = np.rint(100 * (np.rot90(celsius, -1) + 273.15))
    else:
        counts = (100 * celsius).astype(np.int16)
        path.write_bytes(signed_tiff(counts, 6))
        expected = np.rot90(counts, -1).astype(int) + 32768
    assert np.abs(read(path).astype(int) - expected).max() <= 1


def test_a_radiometric_jpeg_gives_its_temperatures(tmp_path):
    """The counts of this file were computed from the temperatures by Planck's law."""
    pytest.importorskip('flyr', reason='needs flyr')
    celsius = temperatures_c()
    path = tmp_path / 'x.jpg'
    path.write_bytes(flir_jpeg(celsius + 273.15))
    found = read(path)
    assert found.shape == SIZE  # that of the counts, not of the picture
    assert np.abs(found / 100 - 273.15 - celsius).max() < 0.1  # a count is up to 0.2 K
    assert read_rgb(path).shape == (2 * SIZE[0], 2 * SIZE[1], 3)


def test_a_damaged_radiometric_jpeg_is_an_error(tmp_path):
    pytest.importorskip('flyr', reason='needs flyr')
    data = flir_jpeg(temperatures_c() + 273.15)
    at = data.index(b'FFF\0')
    path = tmp_path / 'x.jpg'
    path.write_bytes(data[: at + 64] + bytes(14 * 32) + data[at + 64 + 14 * 32 :])
    with pytest.raises(SartmError, match='that flyr cannot read'):
        read(path)


def test_without_flyr_the_command_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'flyr', None)
    path = tmp_path / 'x.jpg'
    path.write_bytes(flir_jpeg(temperatures_c() + 273.15))
    assert main(['predict', '--thermal', str(path), '--out', str(tmp_path / 'out')]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert 'x.jpg is a radiometric JPEG of FLIR; install flyr (requirements/model.txt)' in error
    assert not Path(tmp_path / 'out').exists()
