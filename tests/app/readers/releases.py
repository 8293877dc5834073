"""The keys and defaults of launchers that cannot be installed beside the others, read from their releases' source.

    python -m tests.app.readers.releases axolotl-0.19.0-py3-none-any.whl llamafactory-0.9.5-py3-none-any.whl

writes ``releases.json`` from wheels, of which nothing is imported. Their requirements pin other releases of torch and
transformers than ours.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

FILE = Path(__file__).with_name("releases.json")
SOURCES: Mapping[str, Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "axolotl": {"axolotl": ("axolotl/utils/schemas/", ("AxolotlInputConfig",))},
    "llamafactory": {
        "llamafactory": (
            "llamafactory/hparams/",
            ("ModelArguments", "DataArguments", "TrainingArguments", "FinetuningArguments", "GeneratingArguments"),
        ),
        "llamafactory-v1": (
            "llamafactory/v1/config/",
            ("ModelArguments", "DataArguments", "TrainingArguments", "SampleArguments"),
        ),
    },
}
"""By package and tool: where the classes of its keys are, and which they are."""
Keys = dict[str, Any]


def keys_of(sources: Iterable[str], roots: Iterable[str]) -> Keys:
    """The keys of some classes and of those that they inherit from, each with its default where that is written out.

    Args:
        sources: Python text of every file that may define one of them.
    """
    classes = {
        node.name: node for text in sources for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)
    }
    found: Keys = {}
    for root in roots:
        found |= _fields(classes, root)
    return dict(sorted(found.items()))


def _fields(classes: Mapping[str, ast.ClassDef], name: str) -> Keys:
    if name not in classes:  # another package's: its own keys are checked where it is installed
        return {}
    found: Keys = {}
    for base in classes[name].bases:
        found |= _fields(classes, ast.unparse(base).rpartition(".")[2])
    for statement in classes[name].body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            key, value = statement.target.id, statement.value
            if not key.startswith("_") and not _is_internal(statement):
                found[key] = _default(value)
    return found


def _is_internal(statement: ast.AnnAssign) -> bool:
    """What no config can give."""
    options = statement.value.keywords if isinstance(statement.value, ast.Call) else ()
    not_given = any(
        one.arg == "init" and isinstance(one.value, ast.Constant) and not one.value.value for one in options
    )
    return not_given or "ClassVar" in ast.unparse(statement.annotation)


def _default(value: ast.expr | None) -> Any:
    """A default that is written as a plain value; None for any other, and where there is none."""
    if isinstance(value, ast.Call):
        named = [one.value for one in value.keywords if one.arg == "default"]
        value = named[0] if named else (value.args[0] if value.args else None)
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str | int | float) else None


def releases_of(wheels: Iterable[Path]) -> dict[str, Any]:
    """What ``releases.json`` holds: by tool its version and its keys."""
    found: dict[str, Any] = {}
    for wheel in wheels:
        package, version = wheel.name.split("-")[:2]
        with ZipFile(wheel) as opened:
            for tool, (folder, roots) in SOURCES[package].items():
                inside = [name for name in opened.namelist() if name.startswith(folder) and name.endswith(".py")]
                sources = [opened.read(name).decode() for name in sorted(inside)]
                found[tool] = {"version": version, "keys": keys_of(sources, roots)}
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps(releases_of(map(Path, sys.argv[1:])), indent=1) + "\n", encoding="utf-8")
