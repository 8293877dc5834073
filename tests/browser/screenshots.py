"""Pictures of every page in light, in dark and on a phone, for ``docs/screenshots``; written anew by

python -m tests.browser.screenshots
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.browser.driver import Browser, browser
from tests.browser.serving import furnish, serving

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "screenshots"
TIER = "/tiers/llama-3.3-70b-qlora-89k"
SHORT = "/?model=meta-llama/Llama-3.1-8B-Instruct&gpu=RTX-4090-24GB&max_seq_length=120000"
PAGES = {
    "plan": "/",
    "does-not-fit": SHORT,
    "error": "/?model=unsloth/Llama-3.3-70B-Instuct&max_seq_length=89389&r=32",
    "tiers": "/tiers",
    "tier": TIER,
    "calibrations": "/calibrations",
    "calibration": "/calibrations/shipped",
    "jobs": "/jobs",
    "job": "/jobs/{job}",
    "quarantined": "/jobs/{quarantined}",
    "campaigns": "/campaigns",
    "campaign": "/campaigns/{going}",
    "workers": "/workers",
    "problem": "/problems/unknown-model",
    "unknown": "/nothing/here",
    "unknown-job": "/jobs/999",
    "docs": "/docs",
}
LOCKED = {"sign-in": "/", "signed-out": "/sign-in"}
"""Pages of a service that asks for keys, each by the address that leads to it."""
ON_A_PHONE = {"plan": False, "tier": True, "calibrations": False, "jobs": False, "campaign": True, "sign-in": True}
"""Pages that are shown on a phone too, and whether in dark."""


class Picture(NamedTuple):
    """One file of the folder."""

    page: str
    dark: bool
    phone: bool = False

    @property
    def name(self) -> str:
        return f"{self.page}-{'phone' if self.phone else 'dark' if self.dark else 'light'}"


PICTURES = (
    *(Picture(page, dark) for dark in (False, True) for page in (*PAGES, *LOCKED)),
    *(Picture(page, dark, phone=True) for page, dark in ON_A_PHONE.items()),
)
"""All that is written."""

WHOLE = (
    "return document.readyState === 'complete' && "
    "(!document.querySelector('#more .waiting') || !!document.getElementById('fault'))"
)
SIGN_OUT = (
    "const form = document.createElement('form');"
    "Object.assign(form, {method: 'post', action: '/sign-out'}); document.body.append(form); form.submit();"
)


@contextmanager
def furnished() -> Iterator[dict[str, str]]:
    """The address of every page, of services in whose queue something is to be seen."""
    with TemporaryDirectory() as folder, TemporaryDirectory() as other:
        keys = {"require_keys": True, "keys_secret": "x" * 40}
        with serving(Path(folder)) as service, serving(Path(other), **keys) as locked:
            numbers = furnish(service)
            pages = {name: service + path.format_map(numbers) for name, path in PAGES.items()}
            yield {**pages, **{name: locked + path for name, path in LOCKED.items()}}


def take(window: Browser, url: str, picture: Picture) -> None:
    """One picture of a page, as long as the page is; of the documentation only what a window shows."""
    size = {"width": 390, "height": 844} if picture.phone else {}
    window.look(dark=picture.dark, phone=picture.phone, **size)
    is_docs = picture.page == "docs"
    window.open(url)
    if picture.page == "signed-out":
        window.run(SIGN_OUT)
        window.wait_for_text("h1", "Signed out")
    window.wait("return !!document.querySelector('.opblock')" if is_docs else WHOLE)
    # A page that is longer than its window would show the bar at the window's foot in its middle.
    window.picture(FOLDER / f"{picture.name}.png", whole=not is_docs and picture.name != "plan-phone")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory() as profile, browser(Path(profile)) as window, furnished() as pages:
        for picture in PICTURES:
            take(window, pages[picture.page], picture)


if __name__ == "__main__":
    main()
