"""Problem types of the HTTP interface, and the exceptions of the libraries."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from app.problems import KINDS
from scripts.manual.markdown import code, document, first_line, prose, table

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("estimator", "ctxplan", "probes", "app")
BASE = "CtxplanError"


class Error(NamedTuple):
    """An exception class. ``code``: its own, or the one that it inherits."""

    name: str
    module: str
    bases: tuple[str, ...]
    code: str
    meaning: str


def page() -> str:
    """The reference of errors."""
    kinds = [
        (code(slug), str(kind.status), f"{prose(kind.title)}. {prose(kind.explanation)}")
        for slug, kind in sorted(KINDS.items())
    ]
    found = sorted(errors(), key=lambda error: (PACKAGES.index(error.module.partition(".")[0]), error.code, error.name))
    raised = [(code(error.code), code(f"{error.module}.{error.name}"), error.meaning) for error in found]
    return document(
        "Errors",
        "Every error names the key that is wrong and what is allowed. On the command line it is a line on standard "
        "error and an exit code: 2 for what is wrong in the question, 4 where a service cannot be reached.",
        "## Over HTTP",
        "A problem document (RFC 9457) whose `type` is `/problems/` and the code, which is a page of the service. "
        "`code` and `type` are stable; `detail` and the messages in `errors` are for people.",
        table(("code", "status", "what it says"), kinds),
        "## In Python",
        f"All are `estimator.{BASE}`, with `code`, `key`, `message` and `allowed`; one `except` serves the libraries "
        "and the [client](../client.md).",
        table(("code", "class", "when"), raised),
    )


def errors() -> list[Error]:
    """Every exception class below `CtxplanError`, read from the sources: nothing is imported."""
    classes = [one for package in PACKAGES for one in _classes(ROOT / package)]
    codes = {BASE: "error"}
    ours = [one for one in classes if one.name == BASE]
    while found := [one for one in classes if one not in ours and codes.keys() & set(one.bases)]:
        # A base may stand in a later file, so once more for each generation.
        for one in found:
            own = one.code or next(codes[base] for base in one.bases if base in codes)
            codes[one.name] = own
            ours.append(one)
    return [one._replace(code=one.code or codes[one.name]) for one in ours]


def _classes(folder: Path) -> Iterator[Error]:
    for file in sorted(folder.rglob("*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = tuple(base.id for base in node.bases if isinstance(base, ast.Name))
                yield Error(node.name, module, bases, _code(node), first_line(ast.get_docstring(node)))


def _code(node: ast.ClassDef) -> str:
    """The class's own code; empty where it has none."""
    for one in node.body:
        if isinstance(one, ast.Assign) and isinstance(one.value, ast.Constant):
            names = [target.id for target in one.targets if isinstance(target, ast.Name)]
            if names == ["code"]:
                return str(one.value.value)
    return ""
