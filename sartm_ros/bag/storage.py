"""Opens the files of a rosbag2 bag, and says how to mend a bag that cannot be opened.

`metadata.yaml` only tells which files a bag has and whether they are compressed. Topics and
messages are those that the files hold: metadata that was written by another version of rosbag2, or
by hand, may differ from them.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import quote

import yaml
from rosbags.interfaces import QosDurability
from rosbags.rosbag2.storage_mcap import McapReader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

from sartm_model.errors import SartmError
from sartm_model.utils.text import first_line

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MCAP_MAGIC = b'\x89MCAP0\r\n'
"""The first and the last bytes of an mcap file."""

ROS_1_MAGIC = b'#ROSBAG V'
CDR = 'cdr'


@dataclass(frozen=True)
class RawMessage:
    """A message as the bag stores it.

    Attributes:
        topic: the topic's name.
        type: e.g. 'sensor_msgs/msg/Image'.
        time_ns: time at which it was received, in nanoseconds.
        data: the message serialised as CDR, as DDS transports it.
    """

    topic: str
    type: str
    time_ns: int
    data: bytes


class Topic(NamedTuple):
    """The message type of a topic and the number of its messages in a bag."""

    type: str
    messages: int


class OpenBag:
    """The files of a bag, in the order in which they were recorded.

    Args:
        files: readers of rosbags, opened.
        decompress: makes the bytes of a message of the bytes in the file.

    Attributes:
        topics: type and number of messages of each topic.
        latched: names of the topics that were published for late subscribers too (transient local),
            such as `/tf_static`.
        foreign: names of the topics whose messages are not in CDR, the format of ROS 2.
    """

    def __init__(self, files: list[Any], decompress: Callable[[bytes], bytes]) -> None:
        self._files, self._decompress = files, decompress
        self.topics: dict[str, Topic] = {}
        self.latched: set[str] = set()
        self.foreign: list[str] = []
        for connection in (c for file in files for c in file.connections):
            if not _is_cdr(connection):
                self.foreign.append(connection.topic)
                continue
            count = self.topics[connection.topic].messages if connection.topic in self.topics else 0
            self.topics[connection.topic] = Topic(connection.msgtype, count + connection.msgcount)
            offered = {profile.durability for profile in connection.ext.offered_qos_profiles}
            if QosDurability.TRANSIENT_LOCAL in offered:
                self.latched.add(connection.topic)

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        """Yield the messages of some topics in the order in which they were received."""
        for file in self._files:
            wanted = [c for c in file.connections if c.topic in topics and _is_cdr(c)]
            if wanted:
                for connection, time_ns, data in file.messages(wanted):
                    data = self._decompress(bytes(data))
                    yield RawMessage(connection.topic, connection.msgtype, time_ns, data)


def escaped_path(path: Path) -> Path:
    """Return what stands for a path in a URI of SQLite, which rosbags writes without escapes."""
    return Path(str(path).translate({ord(char): quote(char) for char in '#?%'}))


@contextmanager
def open_bag(bag: Path) -> Iterator[OpenBag]:
    """Open a rosbag2 folder, or one `.mcap` or `.db3` file, which may be compressed (`.zstd`).

    Raises SartmError, also while messages are read, if it cannot be read; where a command mends the
    bag, the error names it.
    """
    with ExitStack() as stack:
        stored, compression = _files(bag)
        try:
            paths = stored
            if compression == 'file':
                folder = Path(stack.enter_context(TemporaryDirectory()))
                paths = [_decompressed(path, folder) for path in stored]
            files = []
            for path in paths:
                file = _FILES[path.suffix](path)
                file.open()
                stack.callback(file.close)
                files.append(file)
            yield OpenBag(files, zstd.decompress if compression == 'message' else bytes)
        except (SartmError, GeneratorExit):
            raise
        except Exception as error:  # a damaged file makes its reader raise any exception
            raise SartmError(
                f'{bag} cannot be read as a rosbag2 bag: {first_line(error)}{_recovery(stored)}'
            ) from error


class _KnownSchemas(dict[int, Any]):
    """Schemas of an mcap file by id, in which those of foreign messages are empty."""

    def __setitem__(self, key: int, schema: Any) -> None:
        if schema.encoding not in ('ros2msg', 'ros2idl'):
            schema = schema._replace(encoding='', data='')
        super().__setitem__(key, schema)


class _McapFile(McapReader):
    """Also reads a file with schemas of foreign messages, such as JSON, which rosbags refuses, and
    one that has an index of its chunks but none of their messages, which rosbags takes for empty.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.schemas = _KnownSchemas()

    def open(self) -> None:
        """Open the file."""
        super().open()
        without_index = [chunk for chunk in self.chunks if not chunk.channel_count]
        for chunk in without_index:
            chunk.channel_count.update(dict.fromkeys(self.channels, 1))  # may be in it
        if without_index and not self.metadata.message_count:
            self.meta_scan()
            assert self.statistics is not None
            counts = self.statistics.channel_message_counts
            self.connections = [c._replace(msgcount=counts.get(c.id, 0)) for c in self.connections]


class _Sqlite3File(Sqlite3Reader):
    """Also reads a file whose path has characters with a meaning in URIs."""

    def __init__(self, path: Path) -> None:
        super().__init__(escaped_path(path))


_FILES: dict[str, Any] = {'.mcap': _McapFile, '.db3': _Sqlite3File}


def _is_cdr(connection: Any) -> bool:
    return connection.ext.serialization_format == CDR


def _files(bag: Path) -> tuple[list[Path], str]:
    """Return the files of a bag and their compression: 'none', 'file' or 'message'."""
    if not bag.exists():
        raise SartmError(f'there is no bag {bag}')
    if bag.is_file():
        paths, compression = [bag], 'file' if bag.suffix == '.zstd' else 'none'
    else:
        paths, compression = _listed_files(bag)
    for path in paths:
        _check_file(path)
    return paths, compression


def _listed_files(bag: Path) -> tuple[list[Path], str]:
    """Return the files that `metadata.yaml` lists, and their compression."""
    stored = sorted(p for p in bag.iterdir() if p.suffix in _FILES)
    kind = 'sqlite3' if stored and stored[0].suffix == '.db3' else 'mcap'
    mend = f'; ros2 bag reindex -s {kind} {shlex.quote(str(bag))} writes it anew' if stored else ''
    metadata = bag / 'metadata.yaml'
    if not metadata.exists():
        for path in bag.glob('*.bag'):
            _check_file(path)
        raise SartmError(f'{bag} is not a rosbag2 folder: it has no metadata.yaml{mend}')
    try:
        values = yaml.safe_load(metadata.read_text())['rosbag2_bagfile_information']
        paths = [bag / PurePath(name).name for name in values['relative_file_paths']]
        compression = str(values.get('compression_mode') or 'none').lower()
        method = str(values.get('compression_format') or 'zstd')
    except (OSError, ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError) as error:
        raise SartmError(f'{metadata} cannot be read: {first_line(error)}{mend}') from error
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise SartmError(f'{metadata} lists {", ".join(missing)}, which {bag} does not have{mend}')
    if compression != 'none' and method != 'zstd':
        raise SartmError(f'{bag} is compressed by {method}; expected zstd or no compression')
    return paths, compression


def _check_file(path: Path) -> None:
    """Raise SartmError if a file is not a whole one of a kind that is read."""
    with path.open('rb') as file:
        start = file.read(len(ROS_1_MAGIC))
        file.seek(0, 2)
        file.seek(max(file.tell() - len(MCAP_MAGIC), 0))
        end = file.read()
    quoted = shlex.quote(str(path))
    if start == ROS_1_MAGIC:
        new = shlex.quote(str(path.with_suffix('')))
        raise SartmError(
            f'{path} is a bag of ROS 1; rosbags-convert --src {quoted} --dst {new} makes one of '
            'ROS 2'
        )
    kind = path.with_suffix('').suffix if path.suffix == '.zstd' else path.suffix
    if kind not in _FILES:
        raise SartmError(
            f'{path} cannot be read as a rosbag2 bag: expected a folder, or an .mcap or .db3 file'
        )
    if not start:
        raise SartmError(f'{path} is empty: the recording of this bag was never written')
    if start.startswith(MCAP_MAGIC) and end != MCAP_MAGIC:
        raise SartmError(f'{path} is truncated: the recording was interrupted{_recovery([path])}')


def _recovery(paths: list[Path]) -> str:
    """Return how to read what is whole of mcap files, as the end of a message."""
    if not paths:
        return ''
    path, decompress = paths[0], ''
    if path.suffix == '.zstd':
        packed, path = path, path.with_suffix('')
        # By -c, zstd also keeps what it can read of a file that is cut off.
        decompress = f'zstd -dc {shlex.quote(str(packed))} > {shlex.quote(str(path))}; '
    if path.suffix != '.mcap':
        return ''
    recover = f'mcap recover {shlex.quote(str(path))} -o recovered.mcap'
    return f'; {decompress}{recover} saves the messages that are whole'


def _decompressed(path: Path, folder: Path) -> Path:
    """Decompress a file into a folder and return the new one."""
    out = folder / path.stem
    with path.open('rb') as compressed, zstd.open(compressed) as source, out.open('wb') as target:
        shutil.copyfileobj(source, target)
    return out
