"""The entry point of Ray Train into a lane.

Ray Train's controller, a process per lane, unpickles the function that the workers run: this module spares it a second
of imports that only workers need.
"""

from raysk.search.jobs import LaneSettings


def enter_lane(config: dict[str, LaneSettings]) -> None:
    """Runs on every worker of a lane: does jobs until the broker tells it to leave."""
    from raysk.search.lane_loop import lane_loop

    lane_loop(config["settings"])
