"""Take a picture of a report: `python -m tests.browser.picture report.html picture.png`."""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.browser.chromium import chromium, console_errors, open_report, set_screen


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="report.html")
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=0, help="0: the whole page or section")
    parser.add_argument("--section", help="only this section: runs, plots, rows, …")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--scale", type=float, default=1, help="pixels for each CSS pixel")
    parser.add_argument("--script", default="", help="JavaScript to run first")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the picture; 1 if the page complained."""
    options = build_parser().parse_args(argv)
    with chromium() as driver:
        set_screen(driver, options.width, 900, options.dark, options.scale)
        open_report(driver, options.report)
        if options.script:
            driver.execute_script(options.script)
        selector = f"#{options.section}" if options.section else "html"
        box = driver.execute_script(
            "const r = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return {x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height}",
            selector,
        )
        clip = {**box, "height": options.height or box["height"], "scale": 1}
        picture = driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True}
        )
        options.picture.write_bytes(base64.b64decode(picture["data"]))
        complaints = console_errors(driver)
    print(f"{options.picture}: {options.picture.stat().st_size} bytes")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
