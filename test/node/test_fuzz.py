"""Random corrupt messages: each gives an image of the size that it claims, or a SartmError."""

from __future__ import annotations

import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip('hypothesis', reason='needs hypothesis')

from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import ENCODINGS, SIZES, Fields, corrupt, corrupt_file, valid_image

from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_ros.diagnosis.health import Health
from sartm_ros.messages.images import to_modality, to_rgb
from sartm_ros.node.frame_pipeline import FramePipeline
from sartm_ros.settings.parameters import Parameters

bounds = getattr(np, 'byte_bounds', None) or np.lib.array_utils.byte_bounds  # NumPy 1 and 2


def convert(msg) -> int:
    """Read a message as an image of each modality; return how many of them could be read."""
    read, texts = 0, []
    for name, modality in MODALITIES.items():
        try:
            image = to_modality(msg, name)
        except SartmError as error:
            texts.append(str(error))
            continue
        read += 1
        modality.check(image)
        if hasattr(msg, 'height'):
            assert image.shape[:2] == (msg.height, msg.width)
        # The sum touches every pixel: a view out of bounds would crash.
        assert image.dtype.kind == 'f' or image.sum() >= 0
        if isinstance(getattr(msg, 'data', None), bytes):
            low, high = bounds(image)
            data_low, data_high = bounds(np.frombuffer(msg.data, np.uint8))
            inside = data_low <= low and high <= data_high
            assert inside or not np.shares_memory(image, np.frombuffer(msg.data, np.uint8))
    assert not any('\n' in text for text in texts)
    return read


@pytest.mark.parametrize('count', [450, pytest.param(4500, marks=pytest.mark.slow)])
def test_corrupt_images(count):
    rng = np.random.default_rng(0)
    read = [convert(corrupt(valid_image(rng), rng)) for _ in range(count)]
    assert len(read) == count
    assert 0.1 < np.mean(np.array(read) > 0) < 0.9  # some are read and some are refused


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(
    st.builds(
        Fields,
        encoding=st.one_of(st.sampled_from(ENCODINGS), st.text(max_size=12)),
        height=st.one_of(st.integers(0, 6), st.sampled_from(SIZES)),
        width=st.one_of(st.integers(0, 6), st.sampled_from(SIZES)),
        step=st.one_of(st.integers(0, 24), st.sampled_from(SIZES)),
        is_bigendian=st.integers(0, 255),
        data=st.binary(max_size=80),
    )
)
def test_generated_images(msg):
    convert(msg)


@pytest.mark.parametrize('count', [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_corrupt_files(count):
    rng = np.random.default_rng(1)
    pixels = [rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), np.full((20, 30), 9, np.uint16)]
    files = [
        cv2.imencode('.jpg', pixels[0])[1].tobytes(),
        *(cv2.imencode('.png', image)[1].tobytes() for image in pixels),
    ]
    formats = (
        *('jpeg', 'png', 'rgb8; jpeg compressed bgr8', 'bayer_rggb8; png compressed', '', 'x'),
        *('16UC1; compressedDepth', '32FC1; compressedDepth png'),
    )
    read = 0
    for index in range(count):
        data = corrupt_file(files[index % 3], rng)
        format_ = formats[rng.integers(len(formats))]
        if 'compressedDepth' in format_:
            data = rng.bytes(12) + data
        read += convert(SimpleNamespace(header=None, format=format_, data=data)) > 0
    assert 0 < read < count


def png(width: int, height: int) -> bytes:
    """Return a valid PNG header and too few pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
        )

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', pixels) + chunk(b'IEND', b'')
    )


def jpeg(width: int, height: int) -> bytes:
    """Return a small JPEG whose frame header claims another size."""
    data = bytearray(cv2.imencode('.jpg', np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    at = data.index(b'\xff\xc0') + 5
    data[at : at + 4] = struct.pack('>HH', height, width)
    return bytes(data)


@pytest.mark.parametrize('make', [png, jpeg])
@pytest.mark.parametrize('size', [(60_000, 60_000), (30_000, 30_000), (8193, 8192)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(make, size, monkeypatch):
    def decode(*_):
        raise AssertionError('decoded')

    monkeypatch.setattr(cv2, 'imdecode', decode)
    msg = SimpleNamespace(header=None, format=make.__name__, data=make(*size))
    with pytest.raises(SartmError, match=f'claims {size[0]}x{size[1]} pixels; expected at most'):
        to_rgb(msg)


class CountingPublishers:
    """Counts the labels that a pipeline publishes."""

    def __init__(self):
        self.shapes = []

    def has_listener(self, name):
        return False

    def publish(self, name, image, header):
        self.shapes.append(image.shape)

    def publish_compressed(self, *_):
        pass

    publish_status = publish_latency = publish_camera_info = publish_compressed


class NoNetwork:
    """A predictor that labels everything 0."""

    def predict(self, images, **_):
        given = next(image for image in images.values() if image is not None)
        return SimpleNamespace(
            labels=np.zeros(given.shape[:2], np.uint8),
            confidence=None,
            overlay=None,
            stages_s={},
        )


@pytest.mark.parametrize('count', [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_corrupt_images_through_the_pipeline(count):
    """Of pairs with one corrupt image and random stamps, each gives labels or is counted."""
    rng = np.random.default_rng(2)
    health, outputs, warned = Health('thermal'), CountingPublishers(), []
    pipeline = FramePipeline(
        NoNetwork(), Parameters(), health, outputs, warn=lambda key, text: warned.append(key)
    )
    second = 1
    for index in range(count):
        second = int(rng.integers(-(2**31), 2**31)) if rng.integers(20) == 0 else second + 1
        nanoseconds = int(rng.integers(2**32)) if rng.integers(20) == 0 else 0
        stamp = SimpleNamespace(sec=min(second, 2**31 - 1), nanosec=nanoseconds)
        for number, which in enumerate(('rgb', 'thermal')):
            fields = valid_image(rng)
            if index % 2 == number:
                fields = corrupt(fields, rng)
            header = SimpleNamespace(stamp=stamp, frame_id='')
            pipeline.add(which, SimpleNamespace(header=header, **vars(fields)))
    pipeline.stop()
    counts = health.counts({})
    assert counts['rgb_received'] == counts['thermal_received'] == count
    ends = ('replaced', 'bad_frame', 'failed', 'stopped', 'stall_flat', 'stall_gap', 'stall_frozen')
    dropped = sum(counts.get(f'dropped.{reason}', 0) for reason in ends)
    assert counts['pairs_in'] == counts['pairs_out'] + dropped
    assert counts['pairs_out'] == len(outputs.shapes)
    assert 'dropped.failed' not in counts, warned
    assert counts['dropped.bad_frame'] > 0
