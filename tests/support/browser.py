"""Chromium without a window, controlled by tests."""

from __future__ import annotations

import base64
import json
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


class Browser:
    """Page in Chromium, with its console messages and requests."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path: Path, fragment: str = "", width: int = 1400, height: int = 900, dark: bool = False):
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme, still])
        self.resize(width, height)
        self.driver.get("about:blank")
        self.logs()
        self.driver.get(path.as_uri() + fragment)

    def resize(self, width: int, height: int):
        narrow = width < 600
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=narrow)
        self.tell("Emulation.setTouchEmulationEnabled", enabled=narrow)

    def tell(self, command: str, **parameters):
        return self.driver.execute_cdp_cmd(command, parameters)

    def run(self, script: str, *values):
        return self.driver.execute_script(script, *values)

    def find(self, selector: str):
        return self.driver.find_element("css selector", selector)

    def click(self, selector: str):
        node = self.find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", node)
        node.click()

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0]).textContent.trim()", selector)

    def wait(self, script: str, *values, seconds: float = 30):
        """Wait until a script returns a true value."""
        end = time.monotonic() + seconds
        while not (answer := self.run(script, *values)):
            assert time.monotonic() < end, f"never came true: {script}; console: {self.console()}"
            time.sleep(0.02)
        return answer

    def logs(self) -> list[dict]:
        return [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]

    def console(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the addresses that were requested since the page was opened."""
        sent = (log["params"]["request"]["url"] for log in self.logs() if log["method"] == "Network.requestWillBeSent")
        return list(sent)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.tell("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def running_browser(folder: Path):
    """Run a browser with a new profile in `folder` for the length of a block."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium, "there is no chromium: run scripts/browser.sh, or make .venv/.browser"
    assert driver, "there is no chromedriver: run scripts/browser.sh, or make .venv/.browser"
    options = Options()
    options.binary_location = chromium
    for flag in (*_FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(started)
    finally:
        started.quit()
