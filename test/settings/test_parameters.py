"""Parameters: their checks, their descriptors, and that what is read-only stays so."""

from __future__ import annotations

import array
import math

import numpy as np
import pytest

from sartm_model.errors import SartmError
from sartm_ros.messages.encodings import CHANNELS
from sartm_ros.settings import ros_parameters
from sartm_ros.settings.cameras import (
    camera_topics,
    camera_transports,
    one_camera,
    without_unused_topics,
)
from sartm_ros.settings.parameters import (
    NAMES,
    Parameters,
    homography,
    seconds_to_ns,
    to_dict,
)
from sartm_ros.settings.ros_parameters import parse, update


def test_nothing_given_gives_the_defaults():
    assert parse({}) == Parameters()
    assert parse(to_dict(Parameters())) == Parameters()


def test_values_arrive_under_their_names():
    values = {'sync.max_skew': 0.01, 'sync.reuse_thermal': True, 'device': 'cuda:1'}
    result = parse(values)
    assert (result.sync_max_skew_s, result.sync_reuse_thermal) == (0.01, True)
    assert result.device == 'cuda:1'


def test_one_topic_may_be_empty():
    assert parse({'rgb_topic': ''}).rgb_topic == ''
    assert parse({'thermal_topic': ''}).thermal_topic == ''
    with pytest.raises(SartmError, match='rgb_topic and thermal_topic are empty'):
        parse({'rgb_topic': '', 'thermal_topic': ''})


def test_the_topics_that_a_network_does_not_take_are_unused():
    given = Parameters()
    assert without_unused_topics(given, ('rgb', 'thermal')) == given
    assert without_unused_topics(given, ('thermal',)).rgb_topic == ''
    assert without_unused_topics(given, ('rgb',)).thermal_topic == ''
    with pytest.raises(SartmError, match='takes rgb images, but rgb_topic is empty'):
        without_unused_topics(Parameters(rgb_topic=''), ('rgb',))


def test_a_modality_of_which_no_messages_are_read_is_refused(monkeypatch):
    monkeypatch.delitem(CHANNELS, 'depth')
    with pytest.raises(SartmError, match='encodings are known for depth images; add a row to CHAN'):
        parse({'x_modality': 'depth'})


def test_another_second_camera_has_a_topic_of_its_own():
    depth = parse({'x_modality': 'depth', 'thermal_topic': '/flir'})
    assert camera_topics(depth) == {
        'rgb': 'camera/color/image_raw',
        'depth': 'depth/image_raw',
    }
    depth = parse({'x_modality': 'depth', 'x_topic': '/d', 'x_transport': 'raw'})
    assert camera_topics(depth)['depth'] == '/d'
    assert camera_transports(depth) == {'rgb': 'auto', 'depth': 'raw'}
    alone = parse({'x_modality': 'depth', 'rgb_topic': ''})
    assert one_camera(alone)
    with pytest.raises(SartmError, match='rgb_topic and x_topic are empty'):
        parse({'x_modality': 'depth', 'rgb_topic': '', 'x_topic': ''})
    with pytest.raises(SartmError, match='parameter x_topic is set; with x_modality thermal'):
        parse({'x_topic': '/d'})


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('thermal.shift', 2),
        ('thermal.range', 'fixed'),
        ('thermal.smoothing', 1.0),
        ('thermal.low', 3.0),
        ('thermal.high', 300.0),
        ('thermal.crop', [0, 0, 2, 0]),
        ('thermal.invalid', [0]),
        ('thermal.polarity', 'black_hot'),
    ],
)
def test_what_is_about_thermal_is_refused_for_another_second_camera(name, value):
    assert parse({name: value}) != Parameters()
    with pytest.raises(
        SartmError, match=f'parameter {name} is set; with x_modality depth expected'
    ):
        parse({'x_modality': 'depth', name: value})


def test_what_is_about_any_second_camera_keeps_its_name():
    values = {
        'thermal.on_stall': 'hold',
        'thermal.hold_at_most': 2.0,
        'thermal.detect_frozen': False,
        'thermal.homography': [1.0, 0, 3, 0, 1, 0, 0, 0, 1],
        'sync.thermal_offset': 0.1,
        'sync.reuse_thermal': True,
    }
    result = parse({'x_modality': 'event', **values})
    assert {name: to_dict(result)[name] for name in values} == values


def test_a_network_that_does_not_take_the_second_camera_says_what_it_takes():
    depth = Parameters(x_modality='depth')
    assert without_unused_topics(depth, ('rgb', 'thermal', 'depth')) == depth
    assert without_unused_topics(depth, ('depth',)).rgb_topic == ''
    takes = 'x_modality is depth, but the network takes rgb and thermal images; '
    with pytest.raises(SartmError, match=f'{takes}set x_modality to thermal, or use another'):
        without_unused_topics(depth, ('rgb', 'thermal'))
    rgb_alone = Parameters(x_modality='depth', x_topic='')
    assert without_unused_topics(rgb_alone, ('rgb', 'thermal')) == rgb_alone
    with pytest.raises(
        SartmError, match='takes depth images; set x_modality to depth, and x_topic'
    ):
        without_unused_topics(Parameters(), ('depth',))
    # As before there were others, RGB alone is left of the default.
    assert without_unused_topics(Parameters(), ('rgb', 'depth')).thermal_topic == ''


def test_an_integer_serves_as_a_float():
    assert parse({'overlay.opacity': 1}).overlay_opacity == 1.0


@pytest.mark.parametrize(
    ('name', 'value', 'expected'),
    [
        ('sync.max_skew', -0.1, '0 to 10'),
        ('sync.max_skew', float('nan'), '0 to 10'),
        ('sync.max_wait', 1e9, '0 to 10'),
        ('sync.max_wait', '0.1', 'expected float'),
        ('sync.queue_size', 1, '2 to 1000'),
        ('sync.queue_size', 5.0, 'expected int'),
        ('sync.queue_size', True, 'expected int'),
        ('stall_after', 0.0, '0.05 to 60'),
        ('thermal.on_stall', 'thermal_only', 'one of rgb_only, hold, drop'),
        ('rgb.on_stall', 'hold', 'one of thermal_only, drop'),
        ('thermal.smoothing', -0.5, '0 to 60'),
        ('thermal.hold_at_most', -1.0, '0 to 60'),
        ('sync.policy', 'closest', 'one of nearest, approximate, exact'),
        ('autostart', 'yes', 'expected bool'),
        ('precision', 'int4', 'one of auto, fp16, bf16, fp32'),
        ('device', 'gpu', 'auto, cpu, cuda or cuda:N'),
        ('device', 'cuda:', 'auto, cpu, cuda or cuda:N'),
        ('checkpoint', '', 'is empty'),
        ('rgb_topic', True, 'expected str'),
        ('thermal.high', 70000, '0 to 65535'),
        ('thermal.low', 255.0, 'less than thermal.high, 255'),
        ('overlay.opacity', 1.01, '0 to 1'),
        ('rgb_transport', 'theora', 'one of auto, raw, compressed'),
        ('thermal.homography', '1 0 0', 'expected a list of numbers'),
        ('thermal.homography', ['1'] * 9, 'expected a list of numbers'),
        ('thermal.homography', [1.0] * 8, '8 numbers; expected 9'),
        ('thermal.homography', [math.nan] + [0.0] * 8, 'not finite'),
        ('thermal.homography', [1, 2, 3, 2, 4, 6, 0, 0, 1], 'no inverse'),
        ('thermal.homography', [-1, 0, 640, 0, 1, 0, 0, 0, 1], 'mirrors'),
        ('thermal.homography', [1, 0, 0, 0, 1, 0, 1, 0, 0], 'last number'),
        (
            'thermal.homography',
            [1, 0, 0, 0, 1, 0, 0.01, 0, 1],
            'horizon .*640x480|640x480.*horizon',
        ),
    ],
)
def test_a_bad_value_names_its_parameter(name, value, expected):
    with pytest.raises(SartmError, match=f'^parameter {name} .*{expected}'):
        parse({name: value})


def test_a_homography_is_kept_and_none_may_be_said_in_three_ways():
    doubled = [2, 0, 0.5, 0, 2, 0.5, 0, 0, 1]
    found = homography(parse({'thermal.homography': array.array('d', doubled)}))
    np.testing.assert_array_equal(found, np.reshape(doubled, (3, 3)))
    for nothing in ([1, 0, 0, 0, 1, 0, 0, 0, 1], [], None):
        settings = update(parse({'thermal.homography': doubled}), [('thermal.homography', nothing)])
        assert homography(settings) is None


def test_the_horizon_is_judged_in_the_size_that_is_expected():
    near = [1, 0, 0, 0, 1, 0, -0.001, 0, 1]
    size = {'warm_up.width': 600, 'warm_up.height': 400}
    parse({'thermal.homography': near, **size})  # u = x / (1 - 0.001 x) covers every u from 0
    mirrored = [1, 0, 0, 0, 1, 0, 0.005, 0, 1]  # u = x / (1 + 0.005 x) stays below 200
    with pytest.raises(SartmError, match='600x400'):
        parse({'thermal.homography': mirrored, **size})
    parse({'thermal.homography': mirrored, 'warm_up.width': 160, 'warm_up.height': 120})
    assert homography(Parameters(thermal_homography=(*mirrored,), warm_up_height=0)) is not None


@pytest.mark.parametrize('policy', ['approximate', 'exact'])
@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('sync.thermal_offset', 0.01),
        ('sync.reuse_thermal', True),
        ('rgb.on_stall', 'thermal_only'),
    ],
)
def test_what_only_nearest_has_is_refused_elsewhere(policy, name, value):
    with pytest.raises(SartmError, match=f'parameter {name} is set'):
        parse({'sync.policy': policy, name: value})


def test_run_time_changes():
    result = update(
        Parameters(),
        [('thermal.range', 'fixed'), ('thermal.low', 7000), ('thermal.high', 9000.0)],
    )
    assert (result.thermal_range, result.thermal_low, result.thermal_high) == ('fixed', 7000, 9000)
    assert update(result, [('use_sim_time', True)]) == result


RUN_TIME = {
    'sync.max_skew',
    'thermal.shift',
    'thermal.range',
    'thermal.low',
    'thermal.high',
    'thermal.homography',
    'overlay.opacity',
    'max_rate',
    'stall_after',
    'rgb.on_stall',
    'thermal.on_stall',
    'thermal.hold_at_most',
    'thermal.smoothing',
    'thermal.detect_frozen',
    'thermal.crop',
    'thermal.invalid',
    'thermal.polarity',
}
OTHER_VALUES = {bool: True, int: 3, float: 0.001, str: 'other', 'autostart': False}


@pytest.mark.parametrize('name', sorted(set(NAMES) - RUN_TIME))
def test_the_others_are_read_only_while_configured(name):
    old = to_dict(Parameters())[name]
    assert update(Parameters(), [(name, old)]) == Parameters()
    new = OTHER_VALUES.get(name, OTHER_VALUES[type(old)])
    assert new != old
    with pytest.raises(SartmError, match=f'parameter {name} is read-only while'):
        update(Parameters(), [('overlay.opacity', 0.9), (name, new)])


def test_every_parameter_has_a_descriptor():
    pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    for name in NAMES:
        descriptor = ros_parameters.descriptor(name)
        assert len(descriptor.description) > 20
        assert (ros_parameters.RUN_TIME in descriptor.additional_constraints) == (name in RUN_TIME)
        value = to_dict(Parameters())[name]
        assert len(descriptor.floating_point_range) == isinstance(value, float)
        assert len(descriptor.integer_range) == (type(value) is int)


def test_seconds_are_rounded_to_nanoseconds():
    assert [seconds_to_ns(s) for s in (0.05, -0.000000001, 0.0)] == [50_000_000, -1, 0]
