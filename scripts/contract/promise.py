"""The committed OpenAPI documents: the current one, the last release's, and the breaks that were decided on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.contract.breaks import breaks

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Where the documents are kept.

    Attributes:
        document: of the tree as it is. released: of the last release.
        allowed: ``{"since": VERSION, "breaks": [{"where", "what", "why"}]}``, breaks of that release that are meant.
    """

    document: Path
    released: Path
    allowed: Path

    def write(self, current: Json) -> None:
        """Make ``document`` current."""
        self.document.write_text(text_of(current), encoding="utf-8")


def text_of(document: Json) -> str:
    """A document as it is committed: keys sorted, so that a diff shows what has changed and nothing else."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def why_not(promise: Promise, current: Json) -> tuple[str, ...]:
    """What is wrong with the committed documents, given what the service serves now."""
    faults = []
    if not promise.document.is_file() or promise.document.read_text(encoding="utf-8") != text_of(current):
        faults.append(f"{promise.document.name} is not current; run make openapi")
    if not promise.released.is_file():
        return (*faults, f"{promise.released.name} is missing; scripts/openapi --release writes it")
    released = _read(promise.released)
    if may_break(released["info"]["version"], current["info"]["version"]):
        return tuple(faults)
    found = breaks(released, current)
    allowed, wrong = _allowed(promise.allowed, released["info"]["version"])
    faults += wrong
    faults += [f"breaks {released['info']['version']}: {one}" for one in found if (one.where, one.what) not in allowed]
    kept = {(one.where, one.what) for one in found}
    faults += [f"{promise.allowed.name} lists what is no break: {': '.join(one)}" for one in allowed if one not in kept]
    return tuple(faults)


def release(promise: Promise, current: Json) -> tuple[str, ...]:
    """Make what is promised now the release's, or say why that cannot be."""
    version = current["info"]["version"]
    if promise.released.is_file() and _read(promise.released)["info"]["version"] == version:
        return (f"{promise.released.name} is of {version} already: what a version promised is not changed after it",)
    promise.write(current)
    promise.released.write_text(text_of(current), encoding="utf-8")
    promise.allowed.write_text(text_of({"since": version, "breaks": []}), encoding="utf-8")
    return ()


def may_break(old: str, new: str) -> bool:
    """Whether the version says that what was promised may be broken: another major one; before 1.0, a minor one."""
    before, now = _parts(old), _parts(new)
    return now > before and (now[0] > before[0] or (now[0] == 0 and now[1] > before[1]))


def _parts(version: str) -> tuple[int, int, int]:
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    return major, minor, patch


def _allowed(file: Path, version: str) -> tuple[set[tuple[str, str]], Sequence[str]]:
    """The breaks that are meant, and what is wrong with the list."""
    if not file.is_file():
        return set(), ()
    listed = _read(file)
    if listed["since"] != version:
        return set(), (f"{file.name} is of {listed['since']}, and the last release is {version}",)
    unexplained = [f"{file.name}: {one['where']}: says no why" for one in listed["breaks"] if not one.get("why")]
    return {(one["where"], one["what"]) for one in listed["breaks"]}, unexplained


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
