"""The package's own map is whole."""

from __future__ import annotations

import pkgutil
import re

import probes


def test_each_module_stands_in_the_packages_map_once_with_what_it_is_for() -> None:
    named = re.findall(r"^    (\w+) {2,}\S", str(probes.__doc__), re.MULTILINE)
    assert sorted(named) == sorted(module.name for module in pkgutil.iter_modules(probes.__path__))
