"""Creates the matcher that the node's parameters `sync.*` ask for."""

from __future__ import annotations

from sartm_ros.settings.cameras import one_camera
from sartm_ros.settings.parameters import Parameters, seconds_to_ns
from sartm_ros.sync.message_filters_matcher import MessageFilterMatcher
from sartm_ros.sync.pair_matcher import PairMatcher


def make_matcher(settings: Parameters) -> PairMatcher | MessageFilterMatcher:
    """Return the matcher of `sync.policy`, or of nearest for one camera, which has nothing to pair.

    Raises SartmError if the policy is not installed.
    """
    if settings.sync_policy == 'nearest' or one_camera(settings):
        return make_pair_matcher(settings)
    return MessageFilterMatcher(
        settings.sync_policy,
        settings.sync_max_skew_s,
        settings.sync_queue_size,
        settings.x_modality,
    )


def make_pair_matcher(settings: Parameters) -> PairMatcher:
    """Return the matcher of `sync.policy` nearest."""
    matcher = PairMatcher(
        seconds_to_ns(settings.sync_max_skew_s),
        seconds_to_ns(settings.sync_max_wait_s),
        x_offset_ns=seconds_to_ns(settings.sync_thermal_offset_s),
        reuse_x=settings.sync_reuse_thermal,
        queue_size=settings.sync_queue_size,
        x_name=settings.x_modality,
    )
    update_matcher(matcher, settings)
    return matcher


def update_matcher(matcher: PairMatcher | MessageFilterMatcher, settings: Parameters) -> None:
    """Apply the settings that may change at run time."""
    matcher.max_skew_ns = seconds_to_ns(settings.sync_max_skew_s)
    if one_camera(settings):
        matcher.rgb_alone_after_ns = matcher.x_alone_after_ns = 0
        return
    stall_after_ns = seconds_to_ns(settings.stall_after_s)
    # Also with `thermal.on_stall` drop: the frame is dropped later, where the stall is counted.
    matcher.rgb_alone_after_ns = stall_after_ns
    x_only = settings.rgb_on_stall == 'thermal_only'
    matcher.x_alone_after_ns = stall_after_ns if x_only else None
