"""Replaying a bag offline: its pairs, its figures and its report."""

from __future__ import annotations

import base64
import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from frame_list import FrameList
from html_page import Page
from PIL import Image
from rosbags.typesys import Stores, get_typestore

from sartm_model.data.frame import Frame
from sartm_model.data.synthetic import render_sequence
from sartm_model.errors import SartmError
from sartm_model.evaluation.evaluate import FramePrediction, evaluate
from sartm_model.evaluation.multi_scale_flip import probabilities
from sartm_model.inference.prediction import Prediction
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET
from sartm_ros.bag import offline
from sartm_ros.bag import replay as replaying
from sartm_ros.bag.reading import (
    COMPRESSED_TYPE,
    LABELS_TOPIC,
    RGB_TOPIC,
    THERMAL_TOPIC,
    RawMessage,
    Storage,
    decode,
    open_writer,
    read_raw,
)
from sartm_ros.bag.replay import replay
from sartm_ros.bag.writing import START_NS, Faults, write_bag
from sartm_ros.settings.parameters import Parameters

SHAPE = (12, 16)


class ThresholdPredictor:
    """Says 'person' where thermal is above 100, 'car' where red is above 100, in this order.

    Without thermal there are no persons. The times of the pairs are kept.
    """

    label_space = MFNET
    modalities = ('rgb', 'thermal')

    def __init__(self) -> None:
        self.times_s: list[float | None] = []

    def predict(self, images, *, confidence=False, overlay=False, time_s=None):
        self.times_s.append(time_s)
        rgb, thermal = images['rgb'], images['thermal']
        labels = np.where(rgb[..., 0] > 100, 1, 0).astype(np.uint8)
        if thermal is not None:
            labels[thermal > 100] = 2
        return Prediction(labels, None, np.array(rgb) if overlay else None)


def make_frames(count: int) -> list[Frame]:
    rng = np.random.default_rng(5)
    return [
        Frame(
            name=f'{number:02d}',
            images={
                'rgb': rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8),
                'thermal': rng.integers(0, 256, SHAPE, dtype=np.uint8),
            },
            labels=rng.choice(np.array([0, 1, 2, 255], np.uint8), SHAPE),
        )
        for number in range(count)
    ]


def accuracy(frames: list[Frame], with_thermal: bool = True) -> float:
    """Percent of the labelled pixels that the threshold gets right, pixel by pixel."""
    right = total = 0
    for frame in frames:
        assert frame.rgb is not None
        assert frame.thermal is not None
        assert frame.labels is not None
        for y in range(SHAPE[0]):
            for x in range(SHAPE[1]):
                if frame.labels[y, x] == 255:
                    continue
                warm = with_thermal and frame.thermal[y, x] > 100
                said = 2 if warm else int(frame.rgb[y, x, 0] > 100)
                right += said == frame.labels[y, x]
                total += 1
    return 100 * right / total


def test_every_pair_is_measured_against_the_topic_of_labels(tmp_path):
    frames = make_frames(6)
    write_bag(frames, tmp_path / 'bag', faults=Faults(thermal_offset_s=0.004))
    predictor = ThresholdPredictor()
    result = replay(tmp_path / 'bag', predictor)
    assert predictor.times_s == [(START_NS + number * 100_000_000) * 1e-9 for number in range(6)]
    assert result['pairs'] == result['frames_with_truth'] == 6
    assert result['dropped'] == {}
    assert result['skew_ms'] == {'median': 4.0, 'max': 4.0}
    assert result['metrics']['pixel_accuracy'] == pytest.approx(accuracy(frames))


def test_the_rates_are_those_of_the_network_and_of_the_whole(tmp_path, monkeypatch):
    """A pair takes 30 ms to read and 10 ms in the network."""
    now_s = [50.0]
    clock = SimpleNamespace(perf_counter=lambda: now_s[0])
    for module in (offline, replaying):
        monkeypatch.setattr(module, 'time', clock)

    def read_slowly(pairs):
        for pair in pairs:
            now_s[0] += 0.03
            yield pair

    monkeypatch.setattr(offline, 'read_ahead', read_slowly)

    class SlowPredictor(ThresholdPredictor):
        def predict(self, images, **asked):
            now_s[0] += 0.01
            return super().predict(images, **asked)

    write_bag(make_frames(6), tmp_path / 'bag')
    result = replay(tmp_path / 'bag', SlowPredictor())
    assert result['predict_ms'] == pytest.approx({'median': 10, 'p99': 10})
    assert result['network_pairs_per_s'] == pytest.approx(100)
    assert result['pairs_per_s'] == pytest.approx(25)
    assert result['waiting_percent'] == pytest.approx(75)


def test_labels_of_a_folder_go_by_the_order_of_the_rgb_images(tmp_path):
    frames = make_frames(9)
    # Thermal at a third of the rate: labels must follow the RGB images, not the pairs.
    unlabelled = [replace(frame, labels=None) for frame in frames]
    write_bag(unlabelled, tmp_path / 'bag', rate_hz=30, thermal_rate_hz=10)
    (tmp_path / 'labels').mkdir()
    for frame in frames:
        assert cv2.imwrite(str(tmp_path / 'labels' / f'{frame.name}.png'), frame.labels)
    result = replay(tmp_path / 'bag', ThresholdPredictor(), labels=tmp_path / 'labels')
    assert result['pairs'] == 3
    assert sum(result['dropped'].values()) == 6
    assert result['metrics']['pixel_accuracy'] == pytest.approx(accuracy(frames[::3]))


def test_the_skews_of_two_rates(tmp_path):
    """Thermal at 0, 125 and 250 ms meets RGB at 0, 133 and 267 ms, or 233 ms."""
    write_bag(make_frames(9), tmp_path / 'bag', rate_hz=30, thermal_rate_hz=8)
    result = replay(tmp_path / 'bag', ThresholdPredictor())
    assert result['skew_ms'] == {'median': 8.333, 'max': 16.667}


def test_labels_of_a_folder_go_by_the_list_of_stamps(tmp_path):
    frames = make_frames(8)
    unlabelled = [replace(frame, labels=None) for frame in frames]
    write_bag(unlabelled, tmp_path / 'bag', faults=Faults(drop=0.3, seed=2))
    (tmp_path / 'labels').mkdir()
    lines = ['stamp_ns,file']
    for number in (6, 1, 3):
        lines.append(f'{START_NS + number * 100_000_000},{number}.png')
        assert cv2.imwrite(str(tmp_path / 'labels' / f'{number}.png'), frames[number].labels)
    (tmp_path / 'labels' / 'stamps.csv').write_text('\n'.join(lines) + '\n')
    report = tmp_path / 'report'
    result = replay(tmp_path / 'bag', ThresholdPredictor(), labels=tmp_path / 'labels',
                    report=report)  # fmt: skip
    stamps = [int(line['stamp_ns']) for line in csv.DictReader((report / 'frames.csv').open())]
    out = [number for number in (1, 3, 6) if START_NS + number * 100_000_000 in stamps]
    assert 0 < result['frames_with_truth'] == len(out)
    expected = accuracy([frames[number] for number in out])
    assert result['metrics']['pixel_accuracy'] == pytest.approx(expected)

    (tmp_path / 'labels' / 'stamps.csv').write_text('stamp_ns,file\n17,3.png\n')
    with pytest.raises(SartmError, match=r'no stamp in .*stamps\.csv'):
        replay(tmp_path / 'bag', ThresholdPredictor(), labels=tmp_path / 'labels')


def test_labels_without_the_stamp_of_a_pair(tmp_path):
    """They are refused on a topic that is named, and a warning on the one that is looked for."""
    write_bag(make_frames(5), tmp_path / 'good')

    def restamp(raw: RawMessage) -> RawMessage:
        if raw.topic != LABELS_TOPIC:
            return raw
        # The stamp's nanoseconds come after the four bytes that begin every message and 4 more.
        nanosec = int.from_bytes(raw.data[8:12], 'little') + 1
        return replace(raw, data=raw.data[:8] + nanosec.to_bytes(4, 'little') + raw.data[12:])

    rewrite(tmp_path / 'good', tmp_path / 'bag', restamp)
    words = rf'no labels on {LABELS_TOPIC} belong to a pair; expected .* of {RGB_TOPIC}, such as '
    with pytest.raises(SartmError, match=f'{words}{START_NS}'):
        replay(tmp_path / 'bag', ThresholdPredictor(), labels_topic=LABELS_TOPIC)
    found = replay(tmp_path / 'bag', ThresholdPredictor())
    assert (found['pairs'], found['metrics']) == (5, None)
    assert re.match(f'{words}{START_NS}', found['labels_warning'])
    by_arrival = Parameters(sync_stamp='arrival')
    found = replay(tmp_path / 'bag', ThresholdPredictor(), parameters=by_arrival)
    assert f'stamps of {RGB_TOPIC}, received at most 1 s' in found['labels_warning']
    result = replay(tmp_path / 'bag', ThresholdPredictor(), labels_topic='')
    assert (result['pairs'], result['metrics'], result['labels_warning']) == (5, None, None)


def test_a_topic_that_the_bag_lacks_is_named_also_with_a_folder_of_labels(tmp_path):
    frames = make_frames(3)
    write_bag(frames, tmp_path / 'bag')
    (tmp_path / 'labels').mkdir()
    for frame in frames:
        assert cv2.imwrite(str(tmp_path / 'labels' / f'{frame.name}.png'), frame.labels)
    listed = rf'has no topic /no; its topics are: {RGB_TOPIC}, {LABELS_TOPIC}, {THERMAL_TOPIC}'
    for settings in (Parameters(rgb_topic='/no'), Parameters(thermal_topic='/no')):
        with pytest.raises(SartmError, match=listed):
            replay(
                tmp_path / 'bag',
                ThresholdPredictor(),
                labels=tmp_path / 'labels',
                parameters=settings,
            )
    with pytest.raises(SartmError, match=listed):
        replay(tmp_path / 'bag', ThresholdPredictor(), labels_topic='/no')


def test_labels_that_were_received_late_still_count(tmp_path):
    frames = make_frames(5)
    write_bag(frames, tmp_path / 'prompt')

    def later(raw: RawMessage) -> RawMessage:
        late_ns = 350_000_000 if raw.topic == LABELS_TOPIC else 0
        return replace(raw, time_ns=raw.time_ns + late_ns)

    rewrite(tmp_path / 'prompt', tmp_path / 'bag', later)
    result = replay(tmp_path / 'bag', ThresholdPredictor())
    assert result['frames_with_truth'] == 5
    assert result['metrics']['pixel_accuracy'] == pytest.approx(accuracy(frames))


def test_a_frozen_thermal_camera_is_left_out_as_the_node_does(tmp_path):
    frames = make_frames(20)
    write_bag(frames, tmp_path / 'bag', faults=Faults(freezes=((0.5, 1.0),)))
    report = tmp_path / 'report'
    result = replay(tmp_path / 'bag', ThresholdPredictor(), report=report)
    # Frozen from 0.5 s to below 1.5 s; what it repeats is of 0.4 s, and known 0.3 s later.
    alone = range(7, 15)
    lines = list(csv.DictReader((report / 'frames.csv').open()))
    assert [line['modality'] for line in lines] == [
        'rgb' if number in alone else 'both' for number in range(20)
    ]
    assert [number for number, line in enumerate(lines) if line['thermal'] == 'frozen'] == [*alone]
    assert [line['skew_ms'] for line in lines][6:8] == ['0.000', '']
    assert result['modalities'] == {'both': 12, 'rgb': 8}
    assert result['stalls'] == {'thermal_frozen': 8}
    assert result['dropped'] == {}
    parts = result['metrics_by_modality']
    assert parts['rgb']['frames'] == 8
    expected = accuracy([frames[number] for number in alone], with_thermal=False)
    assert parts['rgb']['pixel_accuracy'] == pytest.approx(expected)
    total = np.array(parts['rgb']['confusion']) + np.array(parts['both']['confusion'])
    assert total.tolist() == result['metrics']['confusion']
    text = (report / 'report.html').read_text()
    assert '12 RGB and thermal' in text
    assert '8 RGB alone' in text

    dropping = replay(
        tmp_path / 'bag', ThresholdPredictor(), parameters=Parameters(thermal_on_stall='drop')
    )
    assert dropping['pairs'] == 12
    assert dropping['dropped'] == {'stall_frozen': 8}


def test_rgb_goes_on_alone_in_a_gap_of_thermal(tmp_path):
    write_bag(make_frames(20), tmp_path / 'whole')
    with open_writer(tmp_path / 'bag') as bag:
        for raw in read_raw(tmp_path / 'whole'):
            gone = START_NS + 500_000_000 <= raw.time_ns < START_NS + 1_500_000_000
            if not (raw.topic == THERMAL_TOPIC and gone):
                bag.write(raw)
    result = replay(tmp_path / 'bag', ThresholdPredictor())
    assert result['messages'][THERMAL_TOPIC] == 10
    assert result['modalities']['both'] == 9  # RGB at 1.5 s does not wait for who was not there
    assert result['modalities']['rgb'] == result['stalls']['thermal_gap'] > 5
    lost = sum(n for reason, n in result['dropped'].items() if reason.startswith('rgb_'))
    assert result['pairs'] + lost == 20
    assert result['frames_with_truth'] == result['pairs']


def test_thermal_alone_has_no_truth_and_no_place_among_the_rgb_images(tmp_path):
    write_bag(make_frames(20), tmp_path / 'whole')
    with open_writer(tmp_path / 'bag') as bag:
        for raw in read_raw(tmp_path / 'whole'):
            gone = START_NS + 500_000_000 <= raw.time_ns < START_NS + 1_500_000_000
            if not (raw.topic == RGB_TOPIC and gone):
                bag.write(raw)

    class AnyPredictor(ThresholdPredictor):
        def predict(self, images, **asked):
            if images['rgb'] is None:
                grey = np.repeat(images['thermal'][..., None], 3, axis=2)
                images = {**images, 'rgb': grey}
            return super().predict(images, **asked)

    settings = Parameters(rgb_on_stall='thermal_only')
    result = replay(
        tmp_path / 'bag', AnyPredictor(), parameters=settings, report=tmp_path / 'report'
    )
    assert result['modalities']['thermal'] > 5
    assert result['frames_with_truth'] == result['modalities']['both'] == 10
    lines = list(csv.DictReader((tmp_path / 'report' / 'frames.csv').open()))
    assert {line['rgb_index'] for line in lines if line['modality'] == 'thermal'} == {''}


@pytest.mark.usefixtures('two_threads')
def test_the_metrics_are_those_of_an_evaluation(tmp_path, nano_checkpoint):
    predictor = Predictor(nano_checkpoint)
    assert predictor.device.type == 'cuda' or predictor.engine == 'parallel'
    frames = FrameList(list(render_sequence(3, 4, 64, 96)))
    bag = tmp_path / 'bag'
    write_bag(frames, bag, storage='sqlite3')

    def predict(frame: Frame) -> FramePrediction:
        confidence, labels = probabilities(predictor, frame.images).max(dim=0)
        return FramePrediction(labels.byte().numpy(), confidence.numpy())

    expected = evaluate(predict, frames)
    replayed = replay(bag, predictor)['metrics']
    for name in ('miou', 'miou_present', 'pixel_accuracy', 'boundary_f1', 'confusion'):
        assert replayed[name] == expected[name]
    assert list(replayed['frame_miou'].values()) == list(expected['frame_miou'].values())
    # The node's confidence has 8 bits.
    assert replayed['ece'] == pytest.approx(expected['ece'], abs=0.1)


def test_without_truth_there_are_no_metrics(tmp_path):
    write_bag([replace(f, labels=None) for f in make_frames(3)], tmp_path / 'bag')
    result = replay(tmp_path / 'bag', ThresholdPredictor())
    assert result['metrics'] is None
    assert result['frames_with_truth'] == 0


def rewrite(source: Path, out: Path, change, storage: Storage = 'mcap') -> None:
    with open_writer(out, storage) as bag:
        for raw in read_raw(source):
            bag.write(change(raw))


def test_an_image_that_cannot_be_read_is_counted_and_passed_over(tmp_path):
    write_bag(make_frames(5), tmp_path / 'good')

    def spoil_one(raw: RawMessage) -> RawMessage:
        second = decode(raw).header.stamp.nanosec == (START_NS + 100_000_000) % 10**9
        return replace(raw, data=raw.data.replace(b'rgb8', b'rgb7')) if second else raw

    rewrite(tmp_path / 'good', tmp_path / 'bag', spoil_one)
    result = replay(tmp_path / 'bag', ThresholdPredictor())
    assert result['pairs'] == 4
    assert result['dropped'] == {'bad_image': 1}

    rewrite(
        tmp_path / 'good',
        tmp_path / 'all',
        lambda raw: replace(raw, data=raw.data.replace(b'rgb8', b'rgb7')),
    )
    with pytest.raises(SartmError, match='rgb7'):
        replay(tmp_path / 'all', ThresholdPredictor())


def test_a_thermal_image_that_cannot_be_read_leaves_rgb(tmp_path):
    frames = make_frames(5)
    write_bag(frames, tmp_path / 'good')
    encoding = b'mono8'

    def spoil(raw: RawMessage) -> RawMessage:
        thermal = raw.topic == THERMAL_TOPIC
        return replace(raw, data=raw.data.replace(encoding, b'mono7')) if thermal else raw

    rewrite(tmp_path / 'good', tmp_path / 'bag', spoil)
    result = replay(tmp_path / 'bag', ThresholdPredictor())
    assert result['modalities'] == {'rgb': 5}
    assert result['stalls'] == {'thermal_unreadable': 5}
    assert "thermal: image encoding 'mono7' is not supported" in result['first_error']
    assert result['metrics']['pixel_accuracy'] == pytest.approx(accuracy(frames, False))
    with pytest.raises(SartmError, match='mono7'):
        replay(
            tmp_path / 'bag', ThresholdPredictor(), parameters=Parameters(thermal_on_stall='drop')
        )


def test_pairs_by_arrival_find_their_labels_by_the_header(tmp_path):
    """The clock of the thermal camera is an hour behind; RGB stamps are 10 s behind the bag's."""
    frames = make_frames(6)
    write_bag(frames, tmp_path / 'good')

    def shift(raw: RawMessage) -> RawMessage:
        seconds = 3600 if raw.topic == THERMAL_TOPIC else 10
        # The stamp's seconds come first, after the four bytes that begin every message.
        stamp = int.from_bytes(raw.data[4:8], 'little') - seconds
        return replace(raw, data=raw.data[:4] + stamp.to_bytes(4, 'little') + raw.data[8:])

    rewrite(tmp_path / 'good', tmp_path / 'bag', shift)
    with pytest.raises(SartmError, match='rgb_'):
        replay(tmp_path / 'bag', ThresholdPredictor())
    result = replay(
        tmp_path / 'bag', ThresholdPredictor(), parameters=Parameters(sync_stamp='arrival')
    )
    assert result['modalities'] == {'both': 6}
    assert result['frames_with_truth'] == 6
    assert result['metrics']['pixel_accuracy'] == pytest.approx(accuracy(frames))


def test_a_bag_without_pairs_says_why(tmp_path):
    write_bag(make_frames(4), tmp_path / 'bag', rate_hz=1, faults=Faults(thermal_offset_s=0.4))
    with pytest.raises(SartmError, match='rgb_'):
        replay(tmp_path / 'bag', ThresholdPredictor())


def test_both_cameras_on_one_topic_are_refused_as_by_the_node(tmp_path):
    write_bag(make_frames(2), tmp_path / 'bag')
    with pytest.raises(SartmError) as raised:
        replay(
            tmp_path / 'bag',
            ThresholdPredictor(),
            parameters=Parameters(thermal_topic='camera/color/image_raw'),
        )
    assert str(raised.value) == (
        "parameter thermal_topic is 'camera/color/image_raw'; expected another topic than "
        f'rgb_topic, which is {RGB_TOPIC} too'
    )


def test_truth_of_another_label_space(tmp_path):
    frames = [replace(f, labels=np.full(SHAPE, 12, np.uint8)) for f in make_frames(2)]
    write_bag(frames, tmp_path / 'bag')
    with pytest.raises(SartmError, match='12'):
        replay(tmp_path / 'bag', ThresholdPredictor())


def test_report(tmp_path):
    frames = make_frames(20)
    write_bag(frames, tmp_path / 'a <bag>')
    result = replay(tmp_path / 'a <bag>', ThresholdPredictor(), report=tmp_path / 'report')
    report = tmp_path / 'report'
    assert {p.name for p in report.iterdir()} == {'report.html', 'frames.csv', 'sheet.png'}

    lines = list(csv.DictReader((report / 'frames.csv').open()))
    assert [int(line['rgb_index']) for line in lines] == list(range(20))
    person = 100 * (frames[7].thermal > 100).mean()
    assert float(lines[7]['person_percent']) == pytest.approx(person, abs=1e-3)
    assert float(lines[7]['pixel_accuracy_percent']) == pytest.approx(
        accuracy(frames[7:8]), abs=1e-3
    )

    html = (report / 'report.html').read_text()
    page = Page(html)
    assert 'Replay of a <bag>' in page.words
    assert f'{result["metrics"]["miou"]:.1f} %' in page.words
    assert not re.search(r'(src|href)="(?!data:|#)', html)  # it needs nothing beside it
    (image,) = page.images
    embedded = base64.b64decode(image['src'].partition('base64,')[2])
    assert embedded == (report / 'sheet.png').read_bytes()
    assert Image.open(io.BytesIO(embedded)).size[0] > 1000


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('kind', ['png', 'jpg'])
def test_a_bag_of_compressed_images_gives_what_the_images_give(tmp_path, kind, storage):
    """RGB as PNG or JPEG, truth as PNG, thermal as 16-bit PNG, as `ros2 bag record` takes them."""
    frames = [
        replace(f, images={'rgb': f.rgb, 'thermal': f.thermal.astype(np.uint16) * 64})
        for f in make_frames(4)
    ]
    write_bag(frames, tmp_path / 'raw')
    types = get_typestore(Stores.ROS2_JAZZY)
    compressed_type = types.types['sensor_msgs/msg/CompressedImage']
    decoded = []  # JPEG changes the colours

    def compressed(raw: RawMessage) -> RawMessage:
        message = decode(raw)
        if raw.topic == THERMAL_TOPIC:
            pixels = message.data.view(np.uint16).reshape(SHAPE)
        else:
            pixels = message.data.reshape(*SHAPE, -1)[..., ::-1]
        suffix = kind if raw.topic == RGB_TOPIC else 'png'
        data = np.frombuffer(cv2.imencode(f'.{suffix}', pixels)[1].tobytes(), np.uint8)
        if raw.topic == RGB_TOPIC:
            decoded.append(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
        name = {'png': 'png', 'jpg': 'jpeg'}[suffix]
        packed = 'bgr8' if raw.topic == RGB_TOPIC else ''
        new = compressed_type(
            header=message.header,
            format=f'{message.encoding}; {name} compressed {packed}',
            data=data,
        )
        cdr = bytes(types.serialize_cdr(new, COMPRESSED_TYPE))
        return replace(raw, topic=f'{raw.topic}/compressed', type=COMPRESSED_TYPE, data=cdr)

    rewrite(tmp_path / 'raw', tmp_path / 'compressed', compressed, storage)

    class Counts(ThresholdPredictor):
        def predict(self, images, **asked):
            assert images['thermal'].dtype == np.uint16
            return super().predict({**images, 'thermal': images['thermal'] // 64}, **asked)

    result = replay(
        tmp_path / 'compressed',
        Counts(),
        labels_topic=f'{LABELS_TOPIC}/compressed',
        parameters=Parameters(
            rgb_topic=f'{RGB_TOPIC}/compressed', thermal_topic=f'{THERMAL_TOPIC}/compressed'
        ),
    )
    assert result['pairs'] == result['frames_with_truth'] == 4
    seen = [
        replace(frame, images={'rgb': rgb, 'thermal': (frame.thermal // 64).astype(np.uint8)})
        for frame, rgb in zip(frames, decoded, strict=True)
    ]
    assert result['metrics']['pixel_accuracy'] == pytest.approx(accuracy(seen))


@pytest.mark.parametrize('by', ['network', 'topic'])
def test_thermal_alone_is_replayed_and_measured(tmp_path, by):
    """A network of thermal alone, or a bag without RGB; labels have the stamps of thermal."""

    class Thermal(ThresholdPredictor):
        modalities = ('thermal',) if by == 'network' else ('rgb', 'thermal')

        def predict(self, images, *, confidence=False, overlay=False, time_s=None):
            thermal = images['thermal']
            assert images['rgb'] is None
            labels = np.where(thermal > 100, 2, 0).astype(np.uint8)
            return Prediction(labels, None, np.dstack([thermal] * 3) if overlay else None)

    frames = make_frames(6)
    write_bag(FrameList(frames), tmp_path / 'bag')
    settings = Parameters() if by == 'network' else Parameters(rgb_topic='')
    result = replay(tmp_path / 'bag', Thermal(), report=tmp_path / 'report', parameters=settings)
    assert result['messages'] == {THERMAL_TOPIC: 6}
    assert (result['pairs'], result['modalities']) == (6, {'thermal': 6})
    assert (result['dropped'], result['stalls'], result['skew_ms']) == ({}, {}, None)
    truth = np.stack([frame.labels for frame in frames])
    said = np.where(np.stack([frame.thermal for frame in frames]) > 100, 2, 0)
    right = 100 * (said == truth)[truth != 255].mean()
    assert result['metrics']['pixel_accuracy'] == pytest.approx(right)
    assert 'thermal alone' in (tmp_path / 'report' / 'report.html').read_text()
    # The labels of a folder, in the order of the thermal images.
    (tmp_path / 'labels').mkdir()
    for frame in frames:
        cv2.imwrite(str(tmp_path / 'labels' / f'{frame.name}.png'), frame.labels)
    again = replay(tmp_path / 'bag', Thermal(), labels=tmp_path / 'labels', parameters=settings)
    assert again['metrics']['pixel_accuracy'] == pytest.approx(right)


def test_a_bag_of_another_sensor(tmp_path):
    """Depth in place of thermal: its gap, its state in the table, its name everywhere."""

    class NearIsPerson(ThresholdPredictor):
        modalities = ('rgb', 'depth')

        def predict(self, images, *, confidence=False, overlay=False, time_s=None):
            rgb, depth = images['rgb'], images['depth']
            labels = np.zeros(rgb.shape[:2], np.uint8)
            if depth is not None:
                labels[depth < 1500] = 2
            return Prediction(labels, None, np.array(rgb) if overlay else None)

    rng = np.random.default_rng(1)
    frames = [
        replace(
            frame,
            images={
                'rgb': frame.rgb,
                'depth': rng.integers(500, 3000, SHAPE).astype(np.uint16),
            },
        )
        for frame in make_frames(20)
    ]
    write_bag(frames, tmp_path / 'whole', x_modality='depth')
    with open_writer(tmp_path / 'bag') as bag:
        for raw in read_raw(tmp_path / 'whole'):
            gone = START_NS + 500_000_000 <= raw.time_ns < START_NS + 1_500_000_000
            if not (raw.topic == '/depth/image_raw' and gone):
                bag.write(raw)
    settings = Parameters(x_modality='depth')
    folder = tmp_path / 'report'
    result = replay(tmp_path / 'bag', NearIsPerson(), parameters=settings, report=folder)
    assert result['messages'] == {RGB_TOPIC: 20, '/depth/image_raw': 10}
    # The first RGB image after the gap does not wait for the depth image that returns.
    assert result['modalities']['both'] == 9
    assert result['stalls'] == {'depth_gap': result['modalities']['rgb']}
    lines = list(csv.DictReader((folder / 'frames.csv').open()))
    assert [line['depth'] for line in lines[:5]] == ['ok'] * 5
    alone = [line for line in lines if line['modality'] == 'rgb']
    assert {line['depth'] for line in alone} == {'gap'}
    page = (folder / 'report.html').read_text()
    assert 'RGB and depth' in page
    assert 'thermal' not in page
    # The part that was seen with depth, counted by hand.
    given = [*frames[:5], *frames[16:]]
    said = np.stack([np.where(f.images['depth'] < 1500, 2, 0) for f in given])
    truth = np.stack([frame.labels for frame in given])
    right = 100 * (said == truth)[truth != 255].mean()
    assert result['metrics_by_modality']['both']['pixel_accuracy'] == pytest.approx(right)
