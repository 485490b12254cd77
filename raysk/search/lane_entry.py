"""Where Ray Train enters a lane.

Its controller unpickles what the workers run, in a process of its own a lane: this module spares it a second of imports
that only workers need.
"""

from raysk.search.jobs import LaneSettings


def enter_lane(config: dict[str, LaneSettings]) -> None:
    """Runs on every worker of a lane: does jobs until the broker sends it home."""
    from raysk.search.lane_loop import lane_loop

    lane_loop(config["settings"])
