"""The pictures of the manual are those that the script writes, and every one of them is shown."""

from __future__ import annotations

import re

from tests.browser.screenshots import FOLDER, ON_A_PHONE, PAGES, PICTURES

MANUAL = FOLDER.parent / "page.md"
NAMES = {picture.name for picture in PICTURES}


def test_the_folder_has_the_pictures_that_the_script_writes_and_no_other_file() -> None:
    assert {file.name for file in FOLDER.iterdir()} == {f"{name}.png" for name in NAMES}


def test_the_manual_shows_every_picture() -> None:
    assert set(re.findall(r"\(screenshots/([\w-]+)\.png\)", MANUAL.read_text(encoding="utf-8"))) == NAMES


def test_every_page_is_drawn_in_light_and_in_dark_and_some_on_a_phone() -> None:
    assert {f"{page}-{scheme}" for page in PAGES for scheme in ("light", "dark")} < NAMES
    assert {f"{page}-phone" for page in ON_A_PHONE} < NAMES
    assert len(NAMES) == len(PICTURES)
