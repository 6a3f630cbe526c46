"""Creates the matcher that the node's parameters `sync.*` ask for."""

from __future__ import annotations

from sartm_ros.settings.cameras import one_camera
from sartm_ros.settings.parameters import Parameters, seconds_to_ns
from sartm_ros.sync.message_filters_matcher import MessageFilterMatcher
from sartm_ros.sync.pair_matcher import PairMatcher


def make_matcher(parameters: Parameters) -> PairMatcher | MessageFilterMatcher:
    """Return the matcher of `sync.policy`, or of nearest for one camera, which has nothing to pair.

    Raises SartmError if the policy is not installed.
    """
    if parameters.sync_policy == 'nearest' or one_camera(parameters):
        return make_pair_matcher(parameters)
    return MessageFilterMatcher(
        parameters.sync_policy,
        parameters.sync_max_skew_s,
        parameters.sync_queue_size,
        parameters.x_modality,
    )


def make_pair_matcher(parameters: Parameters) -> PairMatcher:
    """Return the matcher of `sync.policy` nearest."""
    matcher = PairMatcher(
        seconds_to_ns(parameters.sync_max_skew_s),
        seconds_to_ns(parameters.sync_max_wait_s),
        x_offset_ns=seconds_to_ns(parameters.sync_thermal_offset_s),
        reuse_x=parameters.sync_reuse_thermal,
        queue_size=parameters.sync_queue_size,
        x_name=parameters.x_modality,
    )
    update_matcher(matcher, parameters)
    return matcher


def update_matcher(matcher: PairMatcher | MessageFilterMatcher, parameters: Parameters) -> None:
    """Apply the parameters that may change at run time."""
    matcher.max_skew_ns = seconds_to_ns(parameters.sync_max_skew_s)
    if one_camera(parameters):
        matcher.rgb_alone_after_ns = matcher.x_alone_after_ns = 0
        return
    stall_after_ns = seconds_to_ns(parameters.stall_after_s)
    # Also with `thermal.on_stall` drop: the frame is dropped later, where the stall is counted.
    matcher.rgb_alone_after_ns = stall_after_ns
    x_only = parameters.rgb_on_stall == 'thermal_only'
    matcher.x_alone_after_ns = stall_after_ns if x_only else None
