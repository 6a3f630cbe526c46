"""Parameters: their checks, their descriptors, and that what is read-only stays so."""

from __future__ import annotations

import pytest

from sartm_model.errors import SartmError
from sartm_ros import parameters
from sartm_ros.parameters import NAMES, Parameters, changed, parse, seconds_to_ns, to_dict


def test_nothing_given_gives_the_defaults():
    assert parse({}) == Parameters()
    assert parse(to_dict(Parameters())) == Parameters()


def test_values_arrive_under_their_names():
    values = {'sync.max_skew': 0.01, 'sync.reuse_thermal': True, 'device': 'cuda:1'}
    result = parse(values)
    assert (result.sync_max_skew_s, result.sync_reuse_thermal) == (0.01, True)
    assert result.device == 'cuda:1'


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
        ('sync.policy', 'closest', 'one of nearest, approximate, exact'),
        ('autostart', 'yes', 'expected bool'),
        ('precision', 'int8', 'one of auto, fp16, bf16, fp32'),
        ('device', 'gpu', 'auto, cpu, cuda or cuda:N'),
        ('device', 'cuda:', 'auto, cpu, cuda or cuda:N'),
        ('checkpoint', '', 'is empty'),
        ('rgb_topic', True, 'expected str'),
        ('thermal.high', 70000, '0 to 65535'),
        ('thermal.low', 255.0, 'less than thermal.high, 255'),
        ('overlay.opacity', 1.01, '0 to 1'),
        ('thermal_topic', '/camera/color/image_raw', 'another topic than rgb_topic'),
    ],
)
def test_a_bad_value_names_its_parameter(name, value, expected):
    with pytest.raises(SartmError, match=f'^parameter {name} .*{expected}'):
        parse({name: value})


@pytest.mark.parametrize('policy', ['approximate', 'exact'])
@pytest.mark.parametrize(
    ('name', 'value'), [('sync.thermal_offset', 0.01), ('sync.reuse_thermal', True)]
)
def test_what_only_nearest_has_is_refused_elsewhere(policy, name, value):
    with pytest.raises(SartmError, match=f'parameter {name} is set'):
        parse({'sync.policy': policy, name: value})


def test_run_time_changes():
    result = changed(
        Parameters(),
        [('thermal.range', 'fixed'), ('thermal.low', 7000), ('thermal.high', 9000.0)],
    )
    assert (result.thermal_range, result.thermal_low, result.thermal_high) == ('fixed', 7000, 9000)
    assert changed(result, [('use_sim_time', True)]) == result


RUN_TIME = {'sync.max_skew', 'thermal.range', 'thermal.low', 'thermal.high', 'overlay.opacity'}
OTHER_VALUES = {bool: True, int: 3, float: 0.001, str: 'other', 'autostart': False}


@pytest.mark.parametrize('name', sorted(set(NAMES) - RUN_TIME))
def test_the_others_are_read_only_while_configured(name):
    old = to_dict(Parameters())[name]
    assert changed(Parameters(), [(name, old)]) == Parameters()
    new = OTHER_VALUES.get(name, OTHER_VALUES[type(old)])
    assert new != old
    with pytest.raises(SartmError, match=f'parameter {name} is read-only while'):
        changed(Parameters(), [('overlay.opacity', 0.9), (name, new)])


def test_every_parameter_has_a_descriptor():
    pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    for name in NAMES:
        descriptor = parameters.descriptor(name)
        assert len(descriptor.description) > 20
        assert (parameters.RUN_TIME in descriptor.additional_constraints) == (name in RUN_TIME)
        value = to_dict(Parameters())[name]
        assert len(descriptor.floating_point_range) == isinstance(value, float)
        assert len(descriptor.integer_range) == (type(value) is int)


def test_seconds_are_rounded_to_nanoseconds():
    assert [seconds_to_ns(s) for s in (0.05, -0.000000001, 0.0)] == [50_000_000, -1, 0]
