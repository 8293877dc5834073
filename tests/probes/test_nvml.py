"""Which card is meant, with a driver of ours; and what holds where there is none."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from probes.ballast import hold
from probes.errors import ProbeUnavailable
from probes.nvml import Card, CardWatch, find_card

GIB = 2**30


class NVMLError(Exception):
    """As pynvml's."""


class Driver:
    """A pynvml with cards, by their numbers there: (PCI bus, UUID, MIG mode or None for a card without one)."""

    NVMLError = NVMLError

    def __init__(self, *cards: tuple[str, str, int | None], hidden: tuple[int, ...] = ()) -> None:
        self.cards, self.hidden, self.open = cards, hidden, 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index in self.hidden:
            raise NVMLError("no permission")
        return index

    def nvmlDeviceGetPciInfo(self, handle: int) -> Any:
        return SimpleNamespace(busId=self.cards[handle][0].encode())

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return self.cards[handle][1]

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        mode = self.cards[handle][2]
        if mode is None:
            raise NVMLError("not supported")
        return [mode, mode]

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return f"card {handle}".encode()

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=80 * GIB, free=79 * GIB)

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Three cards, which the driver numbers in another order than their buses have."""
    three = Driver(("00:C0", "GPU-cc11", None), ("00:40", "GPU-4422", 0), ("00:80", "GPU-8833", 0))
    monkeypatch.setitem(sys.modules, "pynvml", three)
    return three


def found(index: int | None, visible: str | None) -> str | None:
    environment: Mapping[str, str] = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    card = find_card(index, environment)
    return card.uuid if card else None


class TestWhichCard:
    @pytest.mark.parametrize(
        ("index", "visible", "uuid"),
        [
            (None, None, "GPU-4422"),
            (0, None, "GPU-4422"),
            (2, None, "GPU-cc11"),
            (None, "2,0", "GPU-cc11"),
            (1, "2,0", "GPU-4422"),
            (None, "GPU-8833", "GPU-8833"),
            (1, "0, GPU-88", "GPU-8833"),
            (None, "", None),
            (None, "-1", None),
            (None, "7,0", None),
            (None, "GPU-", None),
            (None, "cuda:0", None),
        ],
    )
    def test_a_number_is_that_of_the_visible_cards_in_the_order_of_their_buses(
        self, driver: Driver, index: int | None, visible: str | None, uuid: str | None
    ) -> None:
        assert found(index, visible) == uuid
        assert driver.open == 0

    @pytest.mark.parametrize(
        ("index", "visible", "allowed"),
        [(3, None, "0 to 2"), (1, "2", "0 to 0"), (1, "0,9,1", "0 to 0"), (0, "", "none")],
    )
    def test_a_number_that_no_card_has_is_an_error(
        self, driver: Driver, index: int, visible: str | None, allowed: str
    ) -> None:
        with pytest.raises(ProbeUnavailable, match=f"no GPU {index}") as refused:
            found(index, visible)
        assert refused.value.key == "device_index"
        assert allowed in str(refused.value.allowed)
        assert driver.open == 0

    def test_a_card_of_another_container_is_passed_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", Driver(("1", "GPU-a", None), ("2", "GPU-b", None), hidden=(0,)))
        assert found(0, None) == "GPU-b"

    def test_a_card_is_what_the_driver_says_of_it(self, driver: Driver) -> None:
        card = find_card(None, {})
        assert card == Card(uuid="GPU-4422", name="card 1", total_bytes=80 * GIB, free_bytes=79 * GIB, driver="580")

    def test_an_instance_of_a_split_card_is_refused_and_told_what_to_do(self, driver: Driver) -> None:
        with pytest.raises(ProbeUnavailable, match=r"MIG instance MIG-1.*nvidia-smi -mig 0"):
            found(None, "MIG-1")

    def test_a_split_card_is_refused_where_it_is_the_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", Driver(("1", "GPU-a", 1), ("2", "GPU-b", 0)))
        with pytest.raises(ProbeUnavailable, match="MIG mode"):
            found(None, None)
        assert found(1, None) == "GPU-b"


class TestWithout:
    def test_without_a_driver_there_is_no_card_and_nothing_to_sample(self) -> None:
        if find_card() is not None:
            pytest.skip("there is a GPU here")
        with CardWatch(None) as card:
            assert card.sample() is None

    def test_a_card_that_is_smaller_than_its_cap_is_refused(self) -> None:
        card = Card(uuid="GPU-1", name="NVIDIA L4", total_bytes=22 * GIB, free_bytes=22 * GIB, driver="580")
        with pytest.raises(ProbeUnavailable, match="no more than the cap"), hold(80 * GIB, card):
            pass

    def test_a_ballast_that_cannot_be_held_says_why(self) -> None:
        if find_card() is not None:
            pytest.skip("there is a GPU here")
        card = Card(uuid="GPU-1", name="NVIDIA L4", total_bytes=22 * GIB, free_bytes=22 * GIB, driver="580")
        with pytest.raises(ProbeUnavailable, match="no CUDA driver"), hold(8 * GIB, card):
            pass

    def test_a_number_where_there_is_no_card_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", None)
        assert find_card() is None
        with pytest.raises(ProbeUnavailable, match="no GPU is visible here"):
            find_card(0)
