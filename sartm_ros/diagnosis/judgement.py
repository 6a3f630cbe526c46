"""Judges a node by what has happened since the last report, once a second. No ROS import."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from sartm_model.modalities import MODALITIES, describe
from sartm_ros.diagnosis.health import Recent, failure_reasons, stall_counters, unreadable_reason
from sartm_ros.diagnosis.input_timing import InputTiming, round_up
from sartm_ros.settings.cameras import selections

OK, WARN, ERROR = range(3)  # the levels of diagnostic_msgs/DiagnosticStatus

SILENT_S = 2.0
"""A topic without a message for this long is reported, or for `INTERVALS` if that is longer."""

PAIRLESS_S = 1.0
"""That pairs are missing is reported after this long, or `INTERVALS` of the slower camera."""

INTERVALS = 2.0
"""Number of intervals of a camera after which its next image is overdue."""

START_UP_S = 10.0
"""How long after the node has subscribed a silent topic is only a warning, which is not logged: a
camera that is started together with the node takes some seconds to its first image."""

FAILURES_FOR_ERROR = 3
"""Number of failures in a row, without a result in between, from which on the level is ERROR."""

BUSY_S = 10.0
"""A pair that takes the network longer than this is reported."""

MOSTLY_INVALID = 0.25
"""Share of the pixels of thermal images that see nothing from which on there is a warning."""

STALL_HINTS = {
    'frozen': 'the image does not change: a closed shutter, or a driver that hangs?',
    'flat': 'the image has no contrast: a closed shutter, or a lens cap?',
    'gap': 'no images arrive: a closed shutter, or a loose cable?',
    'unreadable': 'the messages cannot be read; the last error follows.',
    'rgb_gap': 'no images arrive: a loose cable?',
}
"""What may have caused each kind of stall, of X by its state."""


@dataclass(frozen=True)
class Report:
    """The judgement of a node.

    Attributes:
        level: OK, WARN or ERROR.
        message: one line that explains it.
        values: the counters and figures by name.
        problem: the name of a problem that is to be logged if it lasts, or ''.
    """

    level: int
    message: str
    values: dict[str, str] = field(default_factory=dict)
    problem: str = ''


def judge(
    recent: Recent,
    timing: InputTiming,
    topics: Mapping[str, str],
    explain_silence: Callable[[str], str],
    busy_s: float = 0.0,
) -> Report:
    """Judge an active node; of several problems the first in this order is reported.

    Args:
        recent: what has happened since the last report.
        timing: of the messages of both topics.
        topics: the topic name of each camera, or of the only one.
        explain_silence: returns why a camera may be silent, and what to do.
        busy_s: seconds for which the inference thread has been at work on one pair.
    """
    new, x_modality = recent.new, timing.parameters.x_modality
    values = recent.values | timing.values()

    def report(level: int, message: str, problem: str = '') -> Report:
        return Report(level, message, values, problem)

    silent = [
        camera
        for camera in topics
        if recent.silence_s[camera] > _patience_s(SILENT_S, timing, [camera])
    ]
    silence = '; '.join(f'no messages on {topics[c]}, {explain_silence(c)}' for c in silent)
    # Where the network takes longer than from report to report, the last pair tells of the present
    # as long as pairs come.
    patience_s = _patience_s(PAIRLESS_S, timing, topics)
    carries_over = recent.since_pair_s <= patience_s
    last_stalls = recent.last_stalls if carries_over else ()
    last_modality = recent.last_modality if carries_over else ''
    stalled = [name for name in stall_counters(x_modality) if new[name] or name in last_stalls]
    serves = new['pairs_out'] or last_modality
    served = _describe_served(stalled, new, x_modality, last_modality)
    if silent and not (stalled and serves):
        if recent.active_s < START_UP_S:
            return report(WARN, silence)
        return report(ERROR, silence, f'silent {" ".join(silent)}')

    no_pairs = ''
    if len(topics) == 1 or recent.since_match_s > patience_s:
        no_pairs = _describe_no_pairs(new, timing, topics, bool(stalled))
    failed = any(new[f'dropped.{reason}'] for reason in failure_reasons(x_modality))
    failing = recent.failures_in_row >= FAILURES_FOR_ERROR and not serves
    # Attempts may be further apart than reports, as while memory is short.
    if failing and (failed or not (no_pairs or stalled)):
        text = f'no results, the last {recent.failures_in_row} attempts failed'
        return report(ERROR, f'{text}: {values["last_error"]}', 'failing')
    if busy_s > BUSY_S:
        text = (
            f'no results: the network has been at work on one pair for {busy_s:.0f} s; engine '
            'compile takes minutes for a new size of images, a large network seconds on a CPU'
        )
        return report(WARN, text, 'busy')
    if no_pairs and not failed:
        return report(WARN, f'{no_pairs}; {served}' if stalled else no_pairs, 'no pairs')

    if stalled:
        hints = [_hint(name, recent, timing, topics) for name in stalled]
        text = '; '.join([served, silence or ' '.join(hints)])
        return report(WARN, text, f'silent {" ".join(silent)}' if silent else '')
    if failed:
        return report(WARN, f'frames that could not be used: {values["last_error"]}')
    if new['missing_outputs']:
        return report(WARN, f'labels without all other outputs: {values["last_error"]}')
    if new['nan_outputs']:
        text = f'NaN from the network in {new["nan_outputs"]} results: unknown (255) there'
        return report(WARN, text)
    if recent.range_warning:
        return report(WARN, recent.range_warning)
    if recent.invalid_share >= MOSTLY_INVALID:
        return report(WARN, describe_invalid(recent.invalid_share))
    losses = timing.describe_losses(topics)
    if losses:
        return report(WARN, losses, 'losses')

    rates = ', '.join(
        f'{MODALITIES[camera].title} {values[f"{camera}_hz"]} Hz' for camera in topics
    )
    unit = 'pairs' if len(topics) > 1 else 'images'
    return report(OK, f'{values["rate_hz"]} {unit} a second ({rates})')


def describe_invalid(share: float) -> str:
    """Return the text of a warning that much of the thermal image sees nothing."""
    return (
        f'{share:.0%} of the thermal image see nothing: a uniform border, fill, or counts in '
        'thermal.invalid; the network is given the mean there'
    )


def _describe_no_pairs(
    new: Mapping[str, int], timing: InputTiming, topics: Mapping[str, str], is_stalled: bool
) -> str:
    """Return why no image found a partner, or '' if that is no wonder.

    An image of a single camera needs no partner, but a stamp.

    Args:
        new: the counters' increases.
        timing: of the messages of both topics.
        topics: the topic name of each camera, or of the only one.
        is_stalled: whether a camera stalls, so that the other one is alone.
    """
    all_arrive = all(new[f'{camera}_received'] for camera in topics)
    if len(topics) == 1:
        reason = '' if new['pairs_in'] else _describe_stamps(new, timing, topics)
        return f'no images are used: {reason}' if reason else ''
    if not (all_arrive or (new['rgb_received'] and not is_stalled)):
        return ''
    reason = _describe_stamps(new, timing, topics)
    if all_arrive and not reason:
        reason = timing.explain_no_pairs()
    return f'no pairs: {reason or "the images wait for their partners"}'


def _describe_stamps(new: Mapping[str, int], timing: InputTiming, cameras: Iterable[str]) -> str:
    """Return which camera's stamps cannot be used and what to do, or ''."""
    for camera in cameras:
        fault = ''
        if new[f'dropped.{camera}_no_stamp']:
            fault = 'gives no valid header.stamp'
        elif 0 < new[f'{camera}_received'] == new[f'dropped.{camera}_duplicate']:
            fault = 'gives all images the same stamp'
        if fault:
            return (
                f'the {MODALITIES[camera].title} driver {fault}: {timing.advise("sync.stamp")} to '
                'arrival'
            )
    return ''


def _describe_served(stalled: list[str], new: Mapping[str, int], x_modality: str, last: str) -> str:
    """Return the stalls and what the results are from; of the last one if there are no new ones."""
    if last and not new['pairs_out']:
        served = f'the last result is from {describe(last, ("rgb", x_modality))}'
    else:
        served = ', '.join(
            f'{new[f"served_{name}"]} results from {describe(name, ("rgb", x_modality))}'
            for name in selections(x_modality)
        )
    return f'{", ".join(stalled)}: {served}'


def _hint(stall: str, recent: Recent, timing: InputTiming, topics: Mapping[str, str]) -> str:
    """Return what may have caused a stall; a gap is also one of messages that cannot be read."""
    camera = next(name for name in topics if stall.startswith(f'{name}_'))
    kind = stall if stall in STALL_HINTS else stall.removeprefix(f'{camera}_')
    if stall == f'{camera}_gap':
        least_s = INTERVALS * timing.streams[camera].camera_interval_s()
        is_regular = recent.silence_s[camera] <= least_s
        if recent.new[f'dropped.{unreadable_reason(camera)}']:
            kind = 'unreadable'
        elif is_regular and least_s > timing.parameters.stall_after_s:
            return (
                f'{topics[camera]}: a camera of {INTERVALS / least_s:.2g} Hz is slower than '
                f'stall_after, {timing.parameters.stall_after_s:g} s, allows: set stall_after to '
                f'{round_up(least_s)}'
            )
    hint = f'{topics[camera]}: {STALL_HINTS[kind]}'
    return f'{hint} {recent.values["last_error"]}' if kind == 'unreadable' else hint


def _patience_s(least_s: float, timing: InputTiming, cameras: Iterable[str]) -> float:
    """Return after how many seconds an image of each camera is overdue, but at least `least_s`."""
    return max(least_s, *(INTERVALS * timing.streams[camera].interval_s() for camera in cameras))
