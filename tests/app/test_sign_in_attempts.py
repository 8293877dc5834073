"""Wrong keys, by address and of all together: who has to wait, and for how long."""

from __future__ import annotations

from app.keys.attempts import MAX_ADDRESSES, MOST, MOST_OF_ALL, SECONDS, SLOW_SECONDS, Attempts


class TestAttempts:
    now = 0.0

    def attempts(self) -> Attempts:
        return Attempts(time=lambda: self.now)

    def test_are_counted_for_each_address_and_forgotten_after_a_minute(self) -> None:
        attempts = self.attempts()
        for second in range(MOST):
            self.now = float(second)
            assert attempts.wait_seconds("10.0.0.1") == 0
            attempts.failed("10.0.0.1")
        assert attempts.wait_seconds("10.0.0.1") == SECONDS - MOST + 1
        assert attempts.wait_seconds("10.0.0.2") == 0
        self.now = SECONDS
        assert attempts.wait_seconds("10.0.0.1") == 0

    def test_of_one_ipv6_network_are_one_machines(self) -> None:
        attempts = self.attempts()
        for number in range(MOST):
            attempts.failed(f"2001:db8::{number:x}")
        assert attempts.wait_seconds("2001:db8::ffff") > 0
        assert attempts.wait_seconds("2001:db8:0:1::1") == 0

    def test_of_one_address_keep_no_other_one_out(self) -> None:
        attempts = self.attempts()
        for _ in range(MOST_OF_ALL + MOST):
            attempts.failed("10.0.0.1")
        assert attempts.wait_seconds("10.0.0.1") > 0
        assert attempts.wait_seconds("10.0.0.2") == 0

    def test_of_all_addresses_together_slow_who_fails_and_keep_nobody_out(self) -> None:
        attempts = self.attempts()
        for number in range(MOST_OF_ALL):
            assert attempts.failed(f"10.0.{number // 250}.{number % 250}") == 0
        assert attempts.failed("192.168.0.1") == SLOW_SECONDS
        assert attempts.wait_seconds("192.168.0.1") == 0
        assert attempts.wait_seconds("192.168.0.2") == 0
        self.now = SECONDS
        assert attempts.failed("192.168.0.1") == 0

    def test_of_many_addresses_take_only_so_much_memory(self) -> None:
        attempts = self.attempts()
        for number in range(MAX_ADDRESSES + 10):
            self.now += SECONDS
            attempts.failed(f"host {number}")
        assert len(attempts._by_address) == MAX_ADDRESSES
