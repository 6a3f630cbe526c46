"""Reading and writing serialised images, compared with rclpy's own serialisation."""

from __future__ import annotations

import struct
from contextlib import suppress

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('hypothesis', reason='needs hypothesis')

from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from ros_helpers import image
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from sartm_model.errors import SartmError
from sartm_ros.messages.cdr import read_compressed_image, read_image, write_image
from sartm_ros.messages.images import to_thermal

WORDS = st.integers(0, 2**32 - 1)
# The zero ends a string, and a lone surrogate has no bytes.
TEXTS = st.text(st.characters(exclude_characters='\0', exclude_categories=['Cs']), max_size=9)
DRAWN = settings(max_examples=300, deadline=None, derandomize=True, database=None)


@st.composite
def headers(draw) -> Header:
    header = Header(frame_id=draw(TEXTS))
    header.stamp.sec = draw(st.integers(-(2**31), 2**31 - 1))
    header.stamp.nanosec = draw(WORDS)
    return header


IMAGES = st.builds(
    Image,
    header=headers(),
    height=WORDS,
    width=WORDS,
    encoding=TEXTS,
    is_bigendian=st.integers(0, 255),
    step=WORDS,
    data=st.binary(max_size=40),
)
COMPRESSED = st.builds(CompressedImage, header=headers(), format=TEXTS, data=st.binary(max_size=40))


def big_endian(msg: Image) -> bytes:
    """The image as a machine of the other byte order sends it, field by field."""
    parts = b''

    def put(kind: str, value: int) -> None:
        nonlocal parts
        size = struct.calcsize(kind)
        while len(parts) % size:
            parts += b'\xee'  # what fills a gap means nothing
        parts += struct.pack('>' + kind, value)

    def put_text(text: str) -> None:
        nonlocal parts
        put('I', len(text.encode()) + 1)
        parts += text.encode() + b'\0'

    put('i', msg.header.stamp.sec)
    put('I', msg.header.stamp.nanosec)
    put_text(msg.header.frame_id)
    put('I', msg.height)
    put('I', msg.width)
    put_text(msg.encoding)
    put('B', msg.is_bigendian)
    put('I', msg.step)
    put('I', len(msg.data))
    return b'\0\0\0\0' + parts + bytes(msg.data)


@DRAWN
@given(IMAGES)
def test_an_image_is_read_as_it_was_sent(msg):
    for message in (serialize_message(msg), big_endian(msg)):
        read = read_image(message)
        for name in ('header', 'height', 'width', 'encoding', 'is_bigendian', 'step'):
            assert getattr(read, name) == getattr(msg, name)
        assert bytes(read.data) == bytes(msg.data)


@DRAWN
@given(COMPRESSED)
def test_a_compressed_image_is_read_as_it_was_sent(msg):
    read = read_compressed_image(serialize_message(msg))
    assert (read.header, read.format, bytes(read.data)) == (msg.header, msg.format, bytes(msg.data))


def test_the_pixels_are_not_copied():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    message = serialize_message(image(pixels, 'mono8', 0, 'odd'))
    view = to_thermal(read_image(message))
    np.testing.assert_array_equal(view, pixels)
    assert np.shares_memory(view, np.frombuffer(message, np.uint8))


@DRAWN
@given(
    headers(),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from(['rgb8', 'mono8', 'mono16']),
    st.booleans(),
)
def test_rclpy_reads_what_is_written(header, height, width, encoding, reversed_):
    size = (height, width, 3) if encoding == 'rgb8' else (height, width)
    dtype = np.uint16 if encoding == 'mono16' else np.uint8
    pixels = np.arange(np.prod(size), dtype=dtype).reshape(size)
    if reversed_:
        pixels = pixels[:, ::-1]  # not in one piece of memory
    expected = image(pixels, encoding, 0)
    expected.header = header
    assert deserialize_message(write_image(pixels, encoding, header), Image) == expected


@DRAWN
@given(IMAGES, st.data())
def test_a_message_that_is_cut_off_is_refused(msg, data):
    message = serialize_message(msg)
    # What the serialiser adds at the end, up to four bytes, may be missing.
    whole = message.rindex(bytes(msg.data)) + len(msg.data)
    cut = data.draw(st.integers(0, whole - 1))
    with pytest.raises(SartmError, match=r'is truncated|expected plain CDR'):
        read_image(message[:cut])


@DRAWN
@given(st.binary(max_size=120), st.sampled_from([b'', b'\0\0\0\0', b'\0\1\0\0']))
def test_rubbish_is_read_or_refused(rubbish, begin):
    for read in (read_image, read_compressed_image):
        with suppress(SartmError):
            assert len(read(begin + rubbish).data) <= len(rubbish)


def test_a_length_that_lies_is_named():
    message = bytearray(serialize_message(Image(encoding='mono8', data=b'1234')))
    at = message.rindex(b'1234') - 4
    message[at : at + 4] = struct.pack('=I', 2**32 - 1)
    with pytest.raises(SartmError, match='data takes 4294967295 bytes'):
        read_image(bytes(message))
    message[16:20] = struct.pack('=I', 2**31)
    at = message.index(b'mono8') - 4
    message[at : at + 4] = struct.pack('=I', 2**31)
    with pytest.raises(SartmError, match='encoding takes 2147483648 bytes'):
        read_image(bytes(message))


def test_another_kind_of_encoding_is_refused():
    message = b'\0\3' + serialize_message(Image())[2:]  # parameter lists, which are not plain
    with pytest.raises(SartmError, match='begins with 00030000; expected plain CDR'):
        read_image(message)
