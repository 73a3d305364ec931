"""Any order of what can happen to a store; the machine is in store_machine.py."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from store_machine import StoreMachine

TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
