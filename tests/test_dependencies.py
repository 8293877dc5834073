"""What the service is made of, as far as no network is needed to see: its licences, and that each package is pinned."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ACCEPTED = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla|LGPL|Lesser General Public|Zlib|HPND",
    re.IGNORECASE,
)
"""Permissive licences, and those whose copyleft ends at the package itself."""
REFUSED = re.compile(r"(?<!L)(?<!Lesser )\b(?:AGPL|GPL|Affero|SSPL|BUSL|Commons Clause|proprietary)", re.IGNORECASE)


def pinned(name: str) -> list[tuple[str, str]]:
    """The packages of a lock file that this platform installs, with their versions."""
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    found = (re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*])?==([^\s;\\]+)", line) for line in lines)
    return [(match[1], match[2]) for match in found if match]


@pytest.mark.parametrize(("name", "version"), pinned("server.txt"))
def test_a_package_of_the_service_has_a_licence_that_goes_with_ours(name: str, version: str) -> None:
    try:
        about = metadata(name)
    except PackageNotFoundError:
        pytest.skip("not for this platform or Python")
    if about["Version"] != version:
        pytest.skip(f"another Python has {version}")
    said = " ".join(
        [
            *(about.get_all("License-Expression") or ()),
            # Some have the whole text there, which begins with the licence's name.
            *(one[:100] for one in about.get_all("License") or ()),
            *(one for one in about.get_all("Classifier") or () if one.startswith("License ::")),
        ]
    )
    assert ACCEPTED.search(said), said
    assert not REFUSED.search(said), said


@pytest.mark.parametrize("file", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda file: file.name)
def test_a_lock_file_says_one_version_of_each_package_and_never_from_where(file: Path) -> None:
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if text and not text.startswith("--hash="):
            assert re.match(r"[A-Za-z0-9._-]+(\[[^]]*])?==[^\s;\\]+(?: ; [^\\]+)? ?\\?$", text), line
        assert "://" not in text


@pytest.mark.parametrize(
    ("licence", "refused"),
    [("LGPL-3.0-only", False), ("GNU Lesser General Public", False), ("GPL-3.0", True), ("AGPL-3.0", True)],
)
def test_a_licence_whose_copyleft_reaches_further_is_told_from_one_whose_does_not(licence: str, refused: bool) -> None:
    assert bool(REFUSED.search(licence)) is refused
