"""16-bit thermal images with places that see nothing, through a node over DDS."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from processes import wait_until
from ros_helpers import SECOND, Peer, image, send_until, stamp_of, view
from sensor_msgs.msg import Image

from sartm_model.inference.predictor import Predictor
from sartm_model.modalities.thermal_range import MEAN
from sartm_model.modalities.thermal_settings import ThermalSettings

SIZE = (64, 96)
TELEMETRY = [0.0, 0.0, 2.0, 0.0]


def counts(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A ramp from 29000 with a warm box and noise."""
    ramp = np.add.outer(np.linspace(0, 300, size[0]), np.linspace(0, 300, size[1]))
    ramp[size[0] // 3 : size[0] // 2, size[1] // 3 : size[1] // 2] += 900
    noise = np.random.default_rng(seed).integers(0, 20, size)
    return (29000 + ramp + noise).astype(np.uint16)


def bordered(thermal: np.ndarray, width: int) -> np.ndarray:
    """The image with a border of zeros."""
    result = np.zeros_like(thermal)
    result[width:-width, width:-width] = thermal[width:-width, width:-width]
    return result


class Sender:
    """Sends pairs at 10 Hz by their stamps, with an RGB view that moves."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._indices = itertools.count()

    def send(self, thermal: np.ndarray, rgb: np.ndarray | None = None) -> int:
        """Send a pair and return its stamp."""
        index = next(self._indices)
        stamp = 2 * SECOND + index * SECOND // 10  # after the probes of `connect`
        msg = Image(encoding='mono16', step=2 * thermal.shape[1], data=thermal.tobytes())
        msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(stamp, SECOND)
        msg.height, msg.width = thermal.shape
        rgb = view(index, *SIZE) if rgb is None else rgb
        self.peer.send(image(rgb, 'rgb8', stamp), msg)
        return stamp

    def labels(self, thermal: np.ndarray, rgb: np.ndarray) -> np.ndarray:
        """Send a pair until its labels come back."""
        sent: set[int] = set()
        send_until(
            lambda: sent.add(self.send(thermal, rgb)),
            lambda: any(stamp_of(msg) in sent for msg in list(self.peer.labels)),
            'labels',
        )
        msg = next(msg for msg in self.peer.labels if stamp_of(msg) in sent)
        return np.frombuffer(msg.data, np.uint8).reshape(SIZE)


def test_a_border_of_zeros_leaves_the_range_and_a_large_one_is_a_warning(
    real_node, real_peer, checkpoint
):
    """The same labels as with the range of what is inside, set by hand, and the mean outside."""
    rgb, thermal = view(1, *SIZE), counts(0)
    image = bordered(thermal, 2)
    seen = np.zeros(SIZE, bool)
    seen[3:-3, 3:-3] = True  # a warp would have mixed zeros into the pixels beside them
    low, high = np.quantile(thermal[::4, ::4][seen[::4, ::4]], (0.01, 0.99))
    # Not uniform, or the predictor would take them out by itself.
    noise = np.indices(SIZE).sum(axis=0) % 2
    by_hand = np.where(seen, thermal, round(low + MEAN * (high - low)) + noise).astype(np.uint16)
    predictor = Predictor(
        checkpoint, device='cpu', thermal_settings=ThermalSettings('fixed', low, high)
    )
    expected = predictor.predict(rgb, by_hand).labels
    predictor.thermal_settings = ThermalSettings('fixed', 0, high)
    without = predictor.predict(rgb, image + (1 + noise).astype(np.uint16)).labels
    sender = Sender(real_peer)
    found = sender.labels(image, rgb)
    assert (found == expected).mean() > 0.98 > (found == without).mean()
    assert 'thermal image see nothing' not in real_node.output

    def warned() -> bool:
        status = real_peer.status()
        return status['level'] == 1 and '% of the thermal image see nothing' in status['message']

    # With new noise and before a view that stands still, thermal never counts as frozen.
    seeds = itertools.count(1)
    send_until(
        lambda: sender.send(bordered(counts(next(seeds)), 14), rgb),
        warned,
        'a warning of the share',
    )
    share = 1 - (SIZE[0] - 30) * (SIZE[1] - 30) / (SIZE[0] * SIZE[1])
    wait_until(lambda: f'{share:.0%} of the thermal image see nothing' in real_node.output, 'a log')
    assert float(real_peer.status()['thermal_invalid_percent']) == pytest.approx(
        100 * share, abs=0.1
    )


def test_a_closed_shutter_behind_a_border_is_flat(quick_peer):
    sender = Sender(quick_peer)
    shutter = np.random.default_rng(0).integers(30000, 30010, SIZE).astype(np.uint16)
    send_until(
        lambda: sender.send(bordered(shutter, 6)),
        lambda: quick_peer.newest.get('thermal') == 'flat',
        'the state flat',
    )


def test_telemetry_is_hinted_at_and_cut_off_and_a_frozen_picture_with_it_is_noticed(
    quick_node, quick_peer
):
    """As of a Lepton: the last two of 122 rows change in every image."""
    sender = Sender(quick_peer)

    def send(seed: int) -> int:
        rows = np.random.default_rng().integers(0, 65536, (2, 160)).astype(np.uint16)
        return sender.send(np.concatenate([counts(seed, (120, 160)), rows]))

    live = itertools.count()
    send_until(
        lambda: send(next(live)),
        lambda: 'set thermal.crop to [0, 0, 2, 0]' in quick_node.output,
        'a hint at telemetry',
    )
    assert '160x122' in quick_node.output
    assert quick_peer.set_parameters(thermal__crop=TELEMETRY) == [(True, '')]
    send_until(
        lambda: send(next(live)),
        lambda: quick_peer.newest.get('thermal') == 'ok',
        'results with the crop',
    )
    send_until(
        lambda: send(-1 % 2**16),
        lambda: quick_peer.newest.get('thermal') == 'frozen',
        'the state frozen',
    )


def test_a_crop_that_leaves_nothing_is_named_and_labels_come_from_rgb(quick_node, quick_peer):
    (refused,) = quick_peer.set_parameters(thermal__crop=[0.0, 0.0, 1.5, 0.0])
    assert not refused[0]
    assert 'thermal crop is [0.0, 0.0, 1.5, 0.0]' in refused[1]
    assert quick_peer.set_parameters(thermal__crop=[40.0, 0.0, 40.0, 0.0]) == [(True, '')]
    sender = Sender(quick_peer)
    send_until(
        lambda: sender.send(counts(0)),
        lambda: quick_peer.newest.get('modality') == 'rgb',
        'results from RGB alone',
    )
    wait_until(lambda: 'crop [40, 0, 40, 0] leaves nothing' in quick_node.output, 'the reason')


def test_a_portrait_image_beside_a_landscape_one_is_refused_with_a_hint(real_node, real_peer):
    sender = Sender(real_peer)
    upright = np.ascontiguousarray(counts(0).T)
    send_until(
        lambda: sender.send(upright),
        lambda: 'thermal is 64x96 and rgb is 96x64' in real_node.output,
        'the refusal',
    )
    assert 'Rotate one in its driver' in real_node.output
