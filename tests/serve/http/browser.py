"""A headless Chromium, spoken to over a pipe: no driver, no port."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless-shell")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)
KEYS = {"Enter": 13, "ArrowDown": 40, "ArrowUp": 38, "Escape": 27, "Backspace": 8, "Tab": 9}


def found() -> str | None:
    """Where a browser is."""
    return next((place for name in NAMES if (place := shutil.which(name))), None)


class Browser:
    """One page of a browser; a context manager that ends it."""

    def __init__(self, width: int = 1120, height: int = 820) -> None:
        self.errors: list[str] = []
        self.asked: list[str] = []
        self._size, self._number, self._session = (width, height), 0, None

    def __enter__(self) -> Browser:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # its children end a moment later
        low = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]  # so that no end of a pipe is 3 or 4
        theirs, self._out = os.pipe()
        self._in, back = os.pipe()

        def pipes():  # Chromium reads at 3 and writes at 4
            os.dup2(theirs, 3)
            os.dup2(back, 4)

        command = [found(), *FLAGS, f"--user-data-dir={self._folder.name}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, preexec_fn=pipes, pass_fds=(3, 4), **quiet)  # noqa: PLW1509
        for end in (theirs, back, *low):
            os.close(end)
        self._read = b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        width, height = self._size
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1.5, mobile=False)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)
        self._folder.cleanup()

    def call(self, method: str, **params: object) -> dict:
        """One command, and what it gives."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                assert "error" not in told, told
                return told["result"]

    def _next(self) -> dict:
        while b"\0" not in self._read:
            part = os.read(self._in, 1 << 20)
            assert part, "the browser ended"
            self._read += part
        line, self._read = self._read.split(b"\0", 1)
        told = json.loads(line)
        if told.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(told["params"]["exceptionDetails"]))
        elif told.get("method") == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
            self.errors.append(json.dumps(told["params"]["entry"]))
        elif told.get("method") == "Network.requestWillBeSent":
            self.asked.append(told["params"]["request"]["url"])
        return told

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def run(self, script: str):
        """What a script gives."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, script: str, seconds: float = 20.0):
        """Wait until a script gives something true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, (script, self.errors)
            time.sleep(0.02)
        return value

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        for one in text:
            self.call("Input.dispatchKeyEvent", type="keyDown", text=one, key=one)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=one)

    def press(self, key: str) -> None:
        """Press a key that is no letter."""
        about = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **about, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def dark(self, on: bool) -> None:
        """What the person's system is set to."""
        value = "dark" if on else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def shoot(self, path: Path) -> None:
        """A picture of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        told = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(told["data"]))
