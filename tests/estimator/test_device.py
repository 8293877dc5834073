"""Finding a GPU by the names that people, clouds and drivers give it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimator.device import DEVICES, find_device
from estimator.errors import UnknownDevice

GIB = 2**30


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
class TestEveryDevice:
    def test_is_found_by_its_name_in_any_case(self, device):
        assert find_device(device.name) is device
        assert find_device(device.name.lower()) is device

    def test_has_less_than_the_gigabytes_of_its_name(self, device):
        nominal = int(device.name.rpartition("-")[2].removesuffix("GB"))
        assert 0.9 * nominal * GIB < device.total_bytes <= max(nominal * GIB, 179 * GIB)

    def test_says_where_its_bytes_come_from(self, device):
        assert "total: " in device.source
        assert "context" in device.source
        assert device.usable_bytes == device.total_bytes - device.context_bytes > 0


def test_names_and_aliases_mean_one_device_each():
    names = [name for device in DEVICES for name in (device.name, *device.aliases)]
    assert [find_device(name).name for name in names] == [
        device.name for device in DEVICES for _ in (device.name, *device.aliases)
    ]


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("H100", "H100-80GB"),
        ("nvidia h100 80gb hbm3", "H100-80GB"),
        ("NVIDIA H100 PCIe", "H100-PCIe-80GB"),
        ("NVIDIA H100 NVL", "H100-NVL-94GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-40GB"),
        ("NVIDIA H200", "H200-141GB"),
        ("NVIDIA B200", "B200-180GB"),
        ("Tesla T4", "T4-16GB"),
        ("Tesla V100-SXM2-32GB", "V100-32GB"),
        ("NVIDIA L4", "L4-24GB"),
        ("NVIDIA L40S", "L40S-48GB"),
        ("NVIDIA A10G", "A10G-24GB"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090-24GB"),
        ("NVIDIA RTX A6000", "RTX-A6000-48GB"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000-Blackwell-96GB"),
    ],
)
def test_the_drivers_own_names_are_known(given_name, name):
    assert find_device(given_name).name == name


class TestAnUnknownName:
    def test_lists_the_catalogue_and_the_nearest(self):
        with pytest.raises(UnknownDevice, match=r'the nearest is "H100-80GB"') as caught:
            find_device("H100-81GB")
        assert caught.value.key == "gpu"
        assert all(device.name in str(caught.value.allowed) for device in DEVICES)

    @pytest.mark.parametrize("name", ["A100", "V100"])
    def test_of_several_sizes_names_them(self, name):
        with pytest.raises(UnknownDevice, match=r"comes in several kinds: .*GB, .*GB"):
            find_device(name)

    def test_of_a_slice_of_a_card_is_not_taken_for_the_card(self):
        with pytest.raises(UnknownDevice):
            find_device("NVIDIA A100 80GB PCIe MIG 1g.10gb")

    @given(st.text(max_size=40))
    def test_is_an_error_of_ours_whatever_it_is(self, name):
        with suppress(UnknownDevice):
            assert find_device(name) in DEVICES

    @pytest.mark.parametrize("gpu", [None, 3, ["H100"]])
    def test_that_is_no_string_is_refused(self, gpu):
        with pytest.raises(UnknownDevice):
            find_device(gpu)


class TestADescribedGpu:
    def test_of_the_catalogue_has_its_properties_and_the_given_bytes(self):
        device = find_device({"name": "NVIDIA H200", "total_bytes": 140 * GIB})
        assert (device.name, device.total_bytes) == ("H200-141GB", 140 * GIB)
        assert device.compute_capability == (9, 0)
        assert device.assumptions == ()

    def test_of_several_sizes_is_the_nearest_of_them(self):
        assert find_device({"name": "A100", "total_bytes": 39 * GIB}).name == "A100-40GB"
        assert find_device({"name": "A100", "total_bytes": 79 * GIB}).name == "A100-80GB"

    def test_that_is_not_known_says_what_is_assumed(self):
        device = find_device({"name": "Foo 9000", "total_bytes": 48 * GIB})
        assert (device.name, device.total_bytes) == ("Foo 9000", 48 * GIB)
        assert device.compute_capability == (8, 0)
        assert "Foo 9000 is not in the catalogue" in device.assumptions[0]

    @pytest.mark.parametrize("total", [None, True, 0, -1, 2.0**34, "80", 2**60])
    def test_needs_a_number_of_bytes(self, total):
        with pytest.raises(UnknownDevice) as caught:
            find_device({"name": "H100", "total_bytes": total})
        assert caught.value.key == "gpu.total_bytes"

    def test_needs_a_name(self):
        with pytest.raises(UnknownDevice) as caught:
            find_device({"total_bytes": 80 * GIB})
        assert caught.value.key == "gpu.name"
