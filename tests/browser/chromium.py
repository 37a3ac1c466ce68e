"""A headless Chromium that opens files, remembers what went wrong and asks nobody for anything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WAIT_S = 20


def installed() -> tuple[str, str] | None:
    """Return the paths of the browser and its driver, None if one of them is missing."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextmanager
def chromium(width: int = 1280, height: int = 900) -> Iterator[webdriver.Chrome]:
    """Yield a browser; it is closed afterwards."""
    found = installed()
    if found is None:
        raise RuntimeError("no chromium and chromedriver: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = found[0]
    # --no-sandbox: containers run tests as root, and Chromium's own sandbox refuses that.
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                 "--disable-dev-shm-usage", f"--window-size={width},{height}"):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found[1]))
    try:
        yield driver
    finally:
        driver.quit()


def open_report(driver: webdriver.Chrome, page: Path) -> None:
    """Open a page from disk and wait until its rows are there."""
    driver.get(page.resolve().as_uri())
    has_rows = "!document.querySelector('#rows') || document.documentElement.dataset.ready"
    WebDriverWait(driver, WAIT_S).until(lambda d: d.execute_script(f"return {has_rows}"))


def set_screen(
    driver: webdriver.Chrome, width: int, height: int, dark: bool = False, scale: float = 1
) -> None:
    """Look at the page on a screen of this size, in light or dark."""
    screen = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [
        {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
        # A page that still scrolls moves things away from under a click.
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def console_errors(driver: webdriver.Chrome) -> list[str]:
    """Return what the console has said since the last call, warnings and errors only."""
    entries = driver.get_log("browser")  # type: ignore[no-untyped-call]
    return [e["message"] for e in entries if e["level"] in ("WARNING", "SEVERE")]


def requested_urls(driver: webdriver.Chrome) -> list[str]:
    """Return every address that pages have asked for since the last call."""
    found = []
    for entry in driver.get_log("performance"):  # type: ignore[no-untyped-call]
        message: dict[str, Any] = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(message["params"]["request"]["url"])
    return found
