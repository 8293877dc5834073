"""Headless Chromium, driven through chromedriver's WebDriver HTTP interface (W3C WebDriver) with httpx alone."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which WebDriver names an element."""

KEYS = {"Enter": "\ue007", "Down": "\ue015", "Up": "\ue013", "Escape": "\ue00c", "Tab": "\ue004", "Right": "\ue014"}
WAIT_SECONDS = 20.0


class Browser:
    """One window of a browser.

    Args:
        session: the session's address, at which ``http`` sends its commands.
    """

    def __init__(self, http: httpx.Client, session: str) -> None:
        self._http = http
        self._session = session

    def command(self, method: str, path: str, body: Any = None) -> Any:
        """Send a command and give its value. Raises AssertionError with what the driver says is wrong."""
        content = None if method != "POST" else json.dumps(body or {})
        answer = self._http.request(method, f"{self._session}{path}", content=content)
        value = answer.json()["value"]
        assert answer.status_code == 200, value
        return value

    def open(self, url: str) -> None:
        """Go to a page and wait until it is there with all its scripts, or a person would look at the one before."""
        self.run("document.isLeft = true")
        self.command("POST", "/url", {"url": url})
        self.wait("return !document.isLeft && document.readyState === 'complete'")

    @property
    def source(self) -> str:
        """The page as the browser has it, as HTML; in a browser without scripts as well."""
        return str(self.command("GET", "/source"))

    @property
    def url(self) -> str:
        return str(self.command("GET", "/url"))

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a function body in the page; a promise that it returns is waited for."""
        return self.command("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, css: str) -> str:
        """The text of an element as a person sees it; empty where there is none."""
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", css))

    def click(self, css: str) -> None:
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", css)
        self.command("POST", f"/element/{self._element(css)}/click")

    def type(self, css: str, text: str, *, clear: bool = True) -> None:
        """Press keys in a field; names of `KEYS` are sent as such by `press`."""
        if clear:
            self.run("document.querySelector(arguments[0]).value = ''", css)
        self.command("POST", f"/element/{self._element(css)}/value", {"text": text})

    def press(self, *names: str) -> None:
        """Press keys, whatever has the focus."""
        strokes = [{"type": kind, "value": KEYS.get(name, name)} for name in names for kind in ("keyDown", "keyUp")]
        self.command("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def point(self, x: float, y: float, *, press: bool = False) -> None:
        """Move the pointer to a place in the window, and press there."""
        moves: list[dict[str, Any]] = [{"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)}]
        moves += [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")] if press else []
        self.command("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": moves}]})

    def wait(self, script: str, *arguments: Any) -> Any:
        """Wait until a function body gives something true, and give it; what the page never does fails in `text`."""
        end = monotonic() + WAIT_SECONDS
        while monotonic() < end:
            if found := self.run(script, *arguments):
                return found
            sleep(0.02)
        raise AssertionError(f"never: {script} {arguments}; the page says {self.text('main')[:600]!r}")

    def wait_for_text(self, css: str, text: str) -> None:
        self.wait("return document.querySelector(arguments[0])?.innerText.includes(arguments[1])", css, text)

    def devtools(self, name: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.command("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def look(self, *, dark: bool = False, width: int = 1280, height: int = 900, phone: bool = False) -> None:
        """Show the page as in a window of this size, in light or dark."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[feature])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)

    def picture(self, file: Path, *, whole: bool = True) -> None:
        """Write what is shown as PNG; ``whole``: the page, not only the window, as long as it is once it is painted."""
        self.run("return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))")
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        file.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """What the console has said since the last call, of errors and warnings."""
        lines = self.command("POST", "/se/log", {"type": "browser"})
        return [line["message"] for line in lines if line["level"] in ("SEVERE", "WARNING")]

    def requested(self) -> list[str]:
        """Every address that the page asked for since the last call."""
        lines = self.command("POST", "/se/log", {"type": "performance"})
        events = [json.loads(line["message"])["message"] for line in lines]
        return [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]

    def _element(self, css: str) -> str:
        return str(self.command("POST", "/element", {"using": "css selector", "value": css})[ELEMENT])


@contextmanager
def browser(profile: Path, *, javascript: bool = True) -> Iterator[Browser]:
    """A window of a new browser with a new profile."""
    assert CHROMIUM
    assert CHROMEDRIVER
    driver = subprocess.Popen([CHROMEDRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{_port(driver)}", timeout=120, trust_env=False) as http:
            answer = http.post("/session", content=json.dumps({"capabilities": _capabilities(profile, javascript)}))
            assert answer.status_code == 200, answer.text
            session = f"/session/{answer.json()['value']['sessionId']}"
            try:
                window = Browser(http, session)
                window.open("about:blank")
                window.requested()  # the browser's own first page is none of ours
                yield window
            finally:
                http.delete(session)
    finally:
        driver.terminate()
        driver.communicate()


def _port(driver: subprocess.Popen[str]) -> str:
    assert driver.stdout
    for line in driver.stdout:
        if "started successfully on port" in line:
            return line.rstrip().rstrip(".").rpartition(" ")[2]
    raise AssertionError("chromedriver ended")


def _capabilities(profile: Path, javascript: bool) -> dict[str, Any]:
    arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"]
    arguments += [f"--user-data-dir={profile}", "--disable-background-networking", "--no-first-run", "--lang=en-US"]
    options: dict[str, Any] = {"binary": CHROMIUM, "args": arguments}
    if not javascript:
        options["prefs"] = {"profile.managed_default_content_settings.javascript": 2}
    logs = {"browser": "ALL", "performance": "ALL"}
    return {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logs}}
