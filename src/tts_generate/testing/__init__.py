"""What a test suite of yours can use: conformance tests for controllers, and a Hub that runs on this machine.

from tts_generate.testing import check_controller
check_controller("path/to/my_controller")

The Hub is `tts_generate.testing.hub.HubServer`; it is not imported from here.
"""

from tts_generate.testing.conformance import (
    INTERVAL,
    MAX_DEPTH,
    ConformanceError,
    check_compiled,
    check_controller,
    check_independent,
    check_knobs,
    check_no_future,
    random_trajectories,
    recording_of,
)

__all__ = [
    "INTERVAL", "MAX_DEPTH", "ConformanceError", "check_compiled", "check_controller", "check_independent",
    "check_knobs", "check_no_future", "random_trajectories", "recording_of",
]  # fmt: skip
