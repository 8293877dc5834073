"""How a process ended that could not say so itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from probes.document import Result, Setting, compose
from probes.measurement import validate
from probes.outcome import oom_kills, outcome_of, raised
from probes.process import Ended
from tests.probes.common import point


class TestHostMemory:
    KILLED = Ended(code=-9, stopped=False)

    def test_a_kill_beside_a_raised_counter_is_the_hosts_memory(self) -> None:
        assert outcome_of(self.KILLED, timed_out=None, oom_killed=True, output="").outcome == "host_out_of_memory"
        assert outcome_of(self.KILLED, timed_out=None, oom_killed=False, output="").outcome == "crashed"

    def test_a_kill_of_ours_is_not(self) -> None:
        ours = Ended(code=-9, stopped=True)
        ending = outcome_of(ours, timed_out=1.0, oom_killed=True, output="")
        assert (ending.outcome, ending.killed) == ("timed_out", False)

    def test_another_signal_is_not(self) -> None:
        ended = Ended(code=-11, stopped=False)
        assert outcome_of(ended, timed_out=None, oom_killed=True, output="").outcome == "crashed"

    def test_whoever_was_killed_by_somebody_else_is_told_from_one_that_crashed(self) -> None:
        for ended in (self.KILLED, Ended(code=None, stopped=False)):
            ending = outcome_of(ended, timed_out=None, oom_killed=False, output="its last words")
            assert (ending.outcome, ending.killed) == ("crashed", True)
        for code in (-11, -15, 1, 0):
            ended = Ended(code=code, stopped=False)
            assert not outcome_of(ended, timed_out=None, oom_killed=False, output="killed by SIGKILL").killed

    def test_a_counter_counts_only_where_it_was_read_before(self) -> None:
        assert raised({"a": 1}, {"a": 2})
        assert not raised({"a": 1}, {"a": 1, "b": 9})
        assert not raised({"a": 1}, {})

    def test_the_kernels_counter_is_read(self) -> None:
        assert all(count >= 0 for count in oom_kills().values())
        assert "/proc/vmstat" in oom_kills()


class TestInTheMeasurement:
    def composed(self, **result: Any) -> dict[str, Any]:
        return compose(point(), Result(**result), Setting(), now=datetime(2026, 1, 1, tzinfo=UTC)).model_dump()

    def test_it_is_a_field_of_a_point_whose_process_was_killed_and_of_no_other(self) -> None:
        """What the release before knows no word for is written only where it has to be."""
        assert self.composed(outcome="crashed", killed=True)["killed"] is True
        assert "killed" not in self.composed(outcome="crashed")
        assert "killed" not in self.composed(outcome="neighbour", killed=True)
        assert "killed" not in self.composed(outcome="timed_out")

    def test_the_process_itself_does_not_decide_it(self) -> None:
        assert self.composed(outcome="crashed", killed=False, facts={"killed": True}).get("killed") is None

    def test_rows_from_before_it_was_noted_are_valid(self) -> None:
        document = self.composed(outcome="crashed", killed=True)
        del document["killed"]
        assert validate(document).killed is None

    def test_a_point_that_ended_otherwise_was_not_killed(self) -> None:
        with pytest.raises(ValueError, match="killed is given only where the outcome is crashed"):
            validate({**self.composed(outcome="timed_out"), "killed": False})
