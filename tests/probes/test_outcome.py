"""How a process ended that could not say so itself."""

from __future__ import annotations

from probes.outcome import oom_kills, outcome_of, raised, was_killed
from probes.process import Ended


class TestHostMemory:
    KILLED = Ended(code=-9, stopped=False)

    def test_a_kill_beside_a_raised_counter_is_the_hosts_memory(self) -> None:
        assert outcome_of(self.KILLED, timed_out=None, oom_killed=True, output="")[0] == "host_out_of_memory"
        assert outcome_of(self.KILLED, timed_out=None, oom_killed=False, output="")[0] == "crashed"

    def test_a_kill_of_ours_is_not(self) -> None:
        ours = Ended(code=-9, stopped=True)
        assert outcome_of(ours, timed_out=1.0, oom_killed=True, output="")[0] == "timed_out"

    def test_another_signal_is_not(self) -> None:
        assert outcome_of(Ended(code=-11, stopped=False), timed_out=None, oom_killed=True, output="")[0] == "crashed"

    def test_whoever_was_killed_by_somebody_else_is_told_from_one_that_crashed(self) -> None:
        killed = (self.KILLED, Ended(code=None, stopped=False))
        for ended in killed:
            outcome, detail = outcome_of(ended, timed_out=None, oom_killed=False, output="its last words")
            assert (outcome, was_killed(detail)) == ("crashed", True)
        _, detail = outcome_of(Ended(code=-11, stopped=False), timed_out=None, oom_killed=False, output="")
        assert not was_killed(detail)
        assert not was_killed(None)

    def test_a_counter_counts_only_where_it_was_read_before(self) -> None:
        assert raised({"a": 1}, {"a": 2})
        assert not raised({"a": 1}, {"a": 1, "b": 9})
        assert not raised({"a": 1}, {})

    def test_the_kernels_counter_is_read(self) -> None:
        assert all(count >= 0 for count in oom_kills().values())
        assert "/proc/vmstat" in oom_kills()
