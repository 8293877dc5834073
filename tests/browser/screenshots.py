"""Pictures of every page in light, in dark and on a phone, for ``docs/screenshots``; written anew by

python -m tests.browser.screenshots http://127.0.0.1:8000
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.browser.driver import Browser, browser

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
    "problem": "/problems/unknown-model",
    "docs": "/docs",
}
WHOLE = (
    "return document.readyState === 'complete' && "
    "(!document.querySelector('#more .waiting') || !!document.getElementById('fault'))"
)


def take(window: Browser, service: str, name: str, path: str) -> None:
    """One picture of a page, as long as the page is; of the documentation only what a window shows."""
    window.open(f"{service}{path}")
    window.wait("return !!document.querySelector('.opblock')" if path == "/docs" else WHOLE)
    # A page that is longer than its window would show the bar at the window's foot in its middle.
    window.picture(FOLDER / f"{name}.png", whole=path != "/docs" and name != "plan-phone")


def main(service: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory() as profile, browser(Path(profile)) as window:
        for dark in (False, True):
            window.look(dark=dark)
            for name, path in PAGES.items():
                take(window, service, f"{name}-{'dark' if dark else 'light'}", path)
        for name in ("plan", "tier", "calibrations"):
            window.look(width=390, height=844, phone=True, dark=name == "tier")
            take(window, service, f"{name}-phone", PAGES[name])


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
