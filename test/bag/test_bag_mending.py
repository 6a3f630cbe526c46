"""Bags that rosbags does not read as they are, and the commands that mend damaged ones."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from backports import zstd
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from sartm_model.cli.main import main
from sartm_model.data.frame import Frame
from sartm_model.errors import SartmError
from sartm_ros.bag.reading import RGB_TOPIC, THERMAL_TOPIC, bag_topics, read_pairs, read_raw
from sartm_ros.bag.storage import RawMessage
from sartm_ros.bag.writing import write_bag
from sartm_ros.settings.parameters import Parameters
from sartm_ros.sync.matching import make_pair_matcher

COUNT = 8
CHATTER = '/chatter'
STORAGES = {'.mcap': 'mcap', '.db3': 'sqlite3'}
ROS2 = get_typestore(Stores.ROS2_JAZZY)


def frames() -> list[Frame]:
    rng = np.random.default_rng(0)
    return [
        Frame(
            f'{i}',
            {
                'rgb': rng.integers(0, 256, (6, 8, 3), dtype=np.uint8),
                'thermal': rng.integers(0, 256, (6, 8), dtype=np.uint8),
            },
        )
        for i in range(COUNT)
    ]


@pytest.fixture(params=['mcap', 'sqlite3'])
def bag(request, tmp_path) -> Path:
    write_bag(frames(), tmp_path / 'night', storage=request.param)
    return tmp_path / 'night'


def edit_metadata(bag: Path, change) -> None:
    """Apply a function to what is in `metadata.yaml`."""
    path = bag / 'metadata.yaml'
    values = yaml.safe_load(path.read_text())
    change(values['rosbag2_bagfile_information'])
    path.write_text(yaml.safe_dump(values))


def check_complete(bag: Path) -> None:
    """Read all that was written."""
    assert {name: topic.messages for name, topic in bag_topics(bag).items()} == {
        RGB_TOPIC: COUNT,
        THERMAL_TOPIC: COUNT,
    }
    assert len(list(read_raw(bag))) == 2 * COUNT
    pairs = list(read_pairs(bag, make_pair_matcher(Parameters())))
    for pair, frame in zip(pairs, frames(), strict=True):
        assert pair.rgb.data.tobytes() == frame.rgb.tobytes()
        assert pair.x.data.tobytes() == frame.thermal.tobytes()


def test_metadata_with_another_quality_of_service_than_the_files(bag):
    """As after `ros2 bag reindex` by another version, or an edit by hand."""
    profile = (
        '- history: 1\n  depth: 3\n  reliability: 2\n  durability: 2\n'
        '  deadline: {sec: 0, nsec: 0}\n  lifespan: {sec: 0, nsec: 0}\n  liveliness: 0\n'
        '  liveliness_lease_duration: {sec: 0, nsec: 0}\n  avoid_ros_namespace_conventions: false\n'
    )

    def change(values):
        for topic in values['topics_with_message_count']:
            topic['topic_metadata']['offered_qos_profiles'] = profile
            topic['topic_metadata']['type_description_hash'] = 'RIHS01_' + 64 * '0'

    edit_metadata(bag, change)
    check_complete(bag)


def test_metadata_that_list_no_topics(bag):
    edit_metadata(bag, lambda values: values.update(topics_with_message_count=[], message_count=0))
    check_complete(bag)


def test_a_bag_that_is_split_over_files(bag):
    """As by the limits of `ros2 bag record`: each topic is in both files."""
    (first,) = (path for path in bag.iterdir() if path.suffix in ('.mcap', '.db3'))
    second = first.with_stem(f'{first.stem}_1')
    write_bag(frames(), bag.with_name('second'), storage=STORAGES[first.suffix])
    bag.with_name('second').joinpath(f'second{first.suffix}').rename(second)
    edit_metadata(bag, lambda values: values.update(relative_file_paths=[first.name, second.name]))
    assert {name: topic.messages for name, topic in bag_topics(bag).items()} == {
        RGB_TOPIC: 2 * COUNT,
        THERMAL_TOPIC: 2 * COUNT,
    }
    assert list(read_raw(bag)) == [*read_raw(first), *read_raw(second)]


@pytest.mark.parametrize('mode', ['file', 'message'])
def test_compressed_bags(bag, mode):
    (file,) = (path for path in bag.iterdir() if path.suffix in ('.mcap', '.db3'))
    if mode == 'file':
        packed = file.with_name(file.name + '.zstd')
        packed.write_bytes(zstd.compress(file.read_bytes()))
        file.unlink()
        names = {'relative_file_paths': [packed.name]}
        edit_metadata(
            bag,
            lambda values: values.update(names, compression_mode='FILE', compression_format='zstd'),
        )
        check_complete(packed)  # the file alone
    else:
        plugin = StoragePlugin.MCAP if file.suffix == '.mcap' else StoragePlugin.SQLITE3
        messages = list(read_raw(bag))
        shutil.rmtree(bag)
        writer = Writer(bag, version=8, storage_plugin=plugin)
        writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
        with writer:
            connections = {
                name: writer.add_connection(name, 'sensor_msgs/msg/Image', typestore=ROS2)
                for name in (RGB_TOPIC, THERMAL_TOPIC)
            }
            for message in messages:
                writer.write(connections[message.topic], message.time_ns, message.data)
    check_complete(bag)


# A topic of another program -----------------------------------------------------------------------


def record(kind: int, content: bytes) -> bytes:
    return struct.pack('<BQ', kind, len(content)) + content


def text(value: str) -> bytes:
    return struct.pack('<I', len(value)) + value.encode()


def mcap_with_json(images: list[RawMessage], index: str) -> bytes:
    """Return an mcap file of ROS 2 with images and a topic of JSON, as other programs add it.

    The layout is that of the specification of MCAP, with one chunk.

    Args:
        images: the messages.
        index: of 'messages', of 'chunks' alone, 'no_statistics' either, or 'none'.
    """
    schema = json.dumps({'type': 'object'})
    definitions = [
        record(
            3, struct.pack('<H', 1) + text('sensor_msgs/msg/Image') + text('ros2msg') + text('')
        ),
        record(3, struct.pack('<H', 2) + text('foxglove.Log') + text('jsonschema') + text(schema)),
    ]
    channels = {RGB_TOPIC: (1, 1, 'cdr'), THERMAL_TOPIC: (2, 1, 'cdr'), CHATTER: (3, 2, 'json')}
    for topic, (number, schema_id, encoding) in channels.items():
        content = struct.pack('<2H', number, schema_id) + text(topic) + text(encoding)
        definitions.append(record(4, content + struct.pack('<I', 0)))
    first_ns, last_ns = images[0].time_ns, images[-1].time_ns
    messages = b''
    for index, image in enumerate(images):
        pairs = [(image.topic, image.data)]
        if index % 3 == 0:
            pairs.append((CHATTER, b'{"message": "hello"}'))
        for topic, data in pairs:
            head = struct.pack('<HI2Q', channels[topic][0], index, image.time_ns, image.time_ns)
            messages += record(5, head + data)
    content = b''.join(definitions) + messages
    chunk = struct.pack('<3QI', first_ns, last_ns, len(content), zlib.crc32(content)) + text('')
    chunk = record(6, chunk + struct.pack('<Q', len(content)) + content)
    magic = b'\x89MCAP0\r\n'
    body = magic + record(1, text('ros2') + text('test'))
    at = len(body)
    body += chunk
    counts = {1: COUNT, 2: COUNT, 3: -(-2 * COUNT // 3)}
    offsets, indexes_at = b'', len(body)
    if index == 'messages':
        for number, count in counts.items():
            offsets += struct.pack('<HQ', number, len(body))
            places = bytes(16 * count)  # times and offsets, which rosbags does not use
            body += record(7, struct.pack('<HI', number, len(places)) + places)
    length = len(body) - indexes_at
    body += record(15, struct.pack('<I', 0))
    summary = b''
    if index != 'none':
        summary = b''.join(definitions)
        head = struct.pack('<4Q', first_ns, last_ns, at, len(chunk))
        head += struct.pack('<I', len(offsets)) + offsets + struct.pack('<Q', length)
        summary += record(8, head + text('') + struct.pack('<2Q', len(content), len(content)))
    if index in ('messages', 'chunks'):
        packed = b''.join(struct.pack('<HQ', *item) for item in counts.items())
        total = sum(counts.values())
        statistics = struct.pack('<QHIIIIQQ', total, 2, 3, 0, 0, 1, first_ns, last_ns)
        summary += record(11, statistics + struct.pack('<I', len(packed)) + packed)
    footer = record(2, struct.pack('<QQI', len(body) if summary else 0, 0, 0))
    return body + summary + footer + magic


@pytest.mark.parametrize('index', ['messages', 'chunks', 'no_statistics', 'none'])
@pytest.mark.parametrize('listed', [True, False])
def test_a_foreign_topic_in_an_mcap_file_does_not_hide_the_others(tmp_path, index, listed):
    """As one file, and as a folder whose metadata list the topic."""
    folder = tmp_path / 'bag'
    write_bag(frames(), folder)
    file = folder / 'bag.mcap'
    file.write_bytes(mcap_with_json(list(read_raw(folder)), index))
    json_topic = {
        'message_count': 6,
        'topic_metadata': {
            'name': CHATTER,
            'type': 'foxglove.Log',
            'serialization_format': 'json',
            'offered_qos_profiles': '',
        },
    }
    edit_metadata(folder, lambda values: values['topics_with_message_count'].append(json_topic))
    bag = folder if listed else file
    check_complete(bag)
    with pytest.raises(SartmError, match=r"topics are: .*; not in ROS 2's format CDR: /chatter"):
        list(read_raw(bag, [CHATTER]))
    pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    from sartm_ros.bag.player import playable_topics

    kind = 'sensor_msgs/msg/Image'
    assert playable_topics(bag) == (
        {RGB_TOPIC: kind, THERMAL_TOPIC: kind},
        set(),
        ['/chatter (not CDR)'],
    )


# Damaged bags -------------------------------------------------------------------------------------


def refusal(bag: Path, capsys) -> str:
    """Return the one line that `sartm replay` says of a bag."""
    assert main(['replay', str(bag)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) == 1, lines
    return lines[0]


def test_a_bag_of_ros_1_names_the_command_that_converts_it(tmp_path, capsys):
    """And that command makes a bag that is read."""
    types = get_typestore(Stores.ROS1_NOETIC)
    image, header = types.types['sensor_msgs/msg/Image'], types.types['std_msgs/msg/Header']
    time = types.types['builtin_interfaces/msg/Time']
    path = tmp_path / 'night.bag'
    with Ros1Writer(path) as writer:
        connections = {
            name: writer.add_connection(name, 'sensor_msgs/msg/Image', typestore=types)
            for name in (RGB_TOPIC, THERMAL_TOPIC)
        }
        for index, frame in enumerate(frames()):
            stamp = time(sec=1700000000 + index, nanosec=0)
            for topic, pixels, encoding in (
                (RGB_TOPIC, frame.rgb, 'rgb8'),
                (THERMAL_TOPIC, frame.thermal, 'mono8'),
            ):
                message = image(
                    header=header(seq=index, stamp=stamp, frame_id=''),
                    height=6,
                    width=8,
                    encoding=encoding,
                    is_bigendian=0,
                    step=pixels.strides[0],
                    data=pixels.reshape(-1),
                )
                data = types.serialize_ros1(message, 'sensor_msgs/msg/Image')
                writer.write(connections[topic], stamp.sec * 10**9, data)
    line = refusal(path, capsys)
    assert f'{path} is a bag of ROS 1; rosbags-convert --src {path} --dst {tmp_path}/night' in line
    assert 'rosbags-convert' in refusal(tmp_path, capsys)  # the folder in which it lies

    command = line.partition('; ')[2].partition(' makes')[0].split()
    program = Path(sys.executable).with_name(command[0])
    subprocess.run([program, *command[1:]], check=True, capture_output=True)
    check_complete(tmp_path / 'night')


def test_a_bag_without_metadata_names_the_command_that_writes_them(bag, capsys):
    storage = 'mcap' if list(bag.glob('*.mcap')) else 'sqlite3'
    command = f'ros2 bag reindex -s {storage} {bag} writes it anew'
    metadata = bag / 'metadata.yaml'
    metadata.write_text('a: [1')
    assert command in refusal(bag, capsys)
    metadata.write_text('just text')
    assert command in refusal(bag, capsys)
    metadata.write_text('rosbag2_bagfile_information: {relative_file_paths: [other.mcap]}')
    line = refusal(bag, capsys)
    assert command in line
    assert 'lists other.mcap, which' in line
    metadata.unlink()
    assert command in refusal(bag, capsys)


@pytest.mark.parametrize('keep', [9, 0.5, -1])
def test_a_truncated_mcap_file_names_the_command_that_recovers_it(tmp_path, keep, capsys):
    write_bag(frames(), tmp_path / 'night')
    file = tmp_path / 'night' / 'night.mcap'
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    for bag in (file, tmp_path / 'night'):
        line = refusal(bag, capsys)
        assert f'{file} is truncated: the recording was interrupted' in line
        assert f'mcap recover {file} -o recovered.mcap' in line


def test_a_damaged_mcap_file_names_that_command_too(tmp_path, capsys):
    write_bag(frames(), tmp_path / 'night')
    file = tmp_path / 'night' / 'night.mcap'
    data = file.read_bytes()
    at = data.rindex(RGB_TOPIC.encode()) - 20  # in the index at the end
    file.write_bytes(data[:at] + bytes(15) + data[at + 15 :])
    assert 'mcap recover' in refusal(file, capsys)


@pytest.mark.parametrize('fault', ['damaged', 'cut off'])
def test_a_compressed_mcap_file_is_decompressed_before_it_is_recovered(tmp_path, fault, capsys):
    """The commands name the files of the bag, and the first makes what the second reads."""
    folder = tmp_path / 'a night'
    write_bag(frames(), folder)
    file = folder / 'a night.mcap'
    whole = file.read_bytes()
    packed = file.with_name(f'{file.name}.zstd')
    file.unlink()
    if fault == 'damaged':
        at = whole.rindex(RGB_TOPIC.encode()) - 20  # in the index at the end
        stored = whole[:at] + bytes(15) + whole[at + 15 :]
        packed.write_bytes(zstd.compress(stored))
    else:
        stored = whole
        data = zstd.compress(whole)
        packed.write_bytes(data[: len(data) // 2])
    names = {'relative_file_paths': [packed.name]}
    edit_metadata(
        folder,
        lambda values: values.update(names, compression_mode='FILE', compression_format='zstd'),
    )
    for bag in (packed, folder):
        commands = refusal(bag, capsys).split('; ')[-2:]
        assert commands[0] == f"zstd -dc '{packed}' > '{file}'"
        assert commands[1].startswith(f"mcap recover '{file}' -o recovered.mcap saves")
    if shutil.which('zstd'):
        subprocess.run(commands[0], shell=True, check=False, capture_output=True)
        assert stored.startswith(file.read_bytes())
        assert fault == 'cut off' or file.read_bytes() == stored


def test_other_files_are_named(tmp_path, capsys):
    empty = tmp_path / 'x.mcap'
    empty.write_bytes(b'')
    assert 'x.mcap is empty' in refusal(empty, capsys)
    write_bag(frames(), tmp_path / 'y')
    edit_metadata(
        tmp_path / 'y',
        lambda values: values.update(compression_mode='FILE', compression_format='lz5'),
    )
    assert 'is compressed by lz5; expected zstd' in refusal(tmp_path / 'y', capsys)
