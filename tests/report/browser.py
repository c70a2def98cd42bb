"""A real Chromium, driven over chromedriver's plain HTTP, for tests of pages; tests skip where it is not installed."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver to open the page"
)
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that W3C WebDriver gives elements
KEYS = {"right": "\ue014", "left": "\ue012", "up": "\ue013", "page up": "\ue00e", "tab": "\ue004"}


class Browser:
    """One window."""

    def __init__(self, port: int, arguments: tuple[str, ...], dark: bool) -> None:
        self._base = f"http://127.0.0.1:{port}"
        options = {
            "binary": CHROMIUM,
            "args": ["--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-sync",
                     "--disable-background-networking", "--disable-component-update", "--use-angle=swiftshader",
                     "--enable-unsafe-swiftshader", *arguments],
        }  # fmt: skip
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        found = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._base += f"/session/{found['sessionId']}"
        if dark:
            media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
            self._ask("POST", "/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": media})

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["value"]

    def open(self, address: str, width: int = 1200, height: int = 900) -> None:
        """Load a page in a window of this size; narrower than Chromium's least by emulation."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._ask("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": size})
        self._ask("POST", "/url", {"url": address})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function body returns in the page."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, seconds: float = 180.0) -> None:
        """Wait until a function body returns something true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            if time.monotonic() > end:
                raise TimeoutError(f"{script}\n{self.complaints()}")
            time.sleep(0.05)

    def complaints(self) -> list[str]:
        """What the page wrote to the console since the last call: warnings and errors."""
        found = self._ask("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in found if entry["level"] in {"WARNING", "SEVERE"}]

    def click(self, selector: str, right: float = 0.0, down: float = 0.0) -> None:
        """Press the mouse over an element, this share of its size away from its centre."""
        element = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        box = self.run("arguments[0].scrollIntoView({block: 'center'}); const b = arguments[0].getBoundingClientRect();"
                       "return [b.width, b.height]", element)  # fmt: skip
        place = {"type": "pointerMove", "origin": element, "x": round(right * box[0]), "y": round(down * box[1])}
        press = [place, {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        self._ask("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": press}]})

    def press(self, selector: str, *keys: str) -> None:
        """Send keys to an element."""
        element = self._ask("POST", "/element", {"using": "css selector", "value": selector})[_ELEMENT]
        self._ask("POST", f"/element/{element}/value", {"text": "".join(KEYS.get(key, key) for key in keys)})

    def picture(self) -> str:
        """The window as PNG in base64."""
        return self._ask("GET", "/screenshot")

    def close(self) -> None:
        """End the session."""
        self._ask("DELETE", "")


@contextlib.contextmanager
def browser(*arguments: str, dark: bool = False) -> Iterator[Browser]:
    """A browser that ends with the block."""
    driver = subprocess.Popen([str(DRIVER), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    window = None
    try:
        assert driver.stdout is not None
        said = ""
        while "started successfully on port" not in said:
            said = driver.stdout.readline()
            assert said, "chromedriver ended at once"
        window = Browser(int(said.rsplit(" ", 1)[1].strip(". \n")), arguments, dark)
        yield window
    finally:
        if window is not None:
            window.close()
        driver.terminate()
        driver.wait(10)
