"""What the package offers, and that it is light to import."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import ctxplan
import ctxplan.client

HEAVY = {"httpx", "torch", "transformers", "fastapi", "pydantic", "numpy"}


@pytest.mark.parametrize("module", [ctxplan, ctxplan.client])
def test_all_names_what_is_exported_and_is_sorted(module: ModuleType) -> None:
    assert sorted(set(module.__all__)) == module.__all__


@pytest.mark.parametrize("name", [name for name in ctxplan.__all__ if ctxplan.LAZY.get(name) != "ctxplan.callback"])
def test_every_name_is_there(name: str) -> None:
    assert getattr(ctxplan, name) is not None


def test_what_is_imported_late_is_exported_and_a_wrong_name_is_an_error() -> None:
    assert set(ctxplan.LAZY) <= set(ctxplan.__all__)
    with pytest.raises(AttributeError, match="Klient"):
        ctxplan.Klient  # noqa: B018 - asked for


def test_importing_the_package_imports_neither_httpx_nor_what_trains() -> None:
    code = f"import sys, ctxplan; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
