"""Measure how quick the report is with many rows: `python -m tests.browser.measure --rows 100000`.

Results are made up in a temporary folder. Figures are the best of three where they are cheap to
repeat, in milliseconds from the opening of the page, or from the key press to the drawn list.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selenium import webdriver

from tests.browser.chromium import chromium, open_report
from tests.browser.made_up_results import make_results

FILTER = """
const done = arguments[arguments.length - 1];
const query = document.querySelector("#query");
query.value = arguments[0];
const start = performance.now();
query.dispatchEvent(new Event("input"));
requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
"""

CLICK = """
const done = arguments[arguments.length - 1];
const start = performance.now();
document.querySelector(arguments[0]).click();
requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
"""

PAINT = """
const paint = performance.getEntriesByName("first-contentful-paint")[0];
const ready = performance.getEntriesByName("rows-ready")[0];
return {paint: paint.startTime, ready: ready.startTime};
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--samplings", nargs="+", default=["greedy", "warm"])
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures as JSON."""
    options = build_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        made_up = make_results(
            Path(folder), options.rows, options.samplings, options={"rows": options.rows}
        )
        start = time.monotonic()
        page = made_up.write_report()
        figures: dict[str, Any] = {"written_s": round(time.monotonic() - start, 1)}
        figures["page_MB"] = round(page.stat().st_size / 1e6, 2)
        with chromium() as driver:
            figures |= measure(driver, page)
    print(json.dumps(figures, indent=2))
    return 0


def measure(driver: webdriver.Chrome, page: Path) -> dict[str, float]:
    """Return first paint, and the times of searches and filters."""
    opened = []
    for _ in range(3):
        open_report(driver, page)
        opened.append(driver.execute_script(PAINT))
    figures = {f"{key}_ms": min(one[key] for one in opened) for key in ("paint", "ready")}
    # The first search right after opening pays for the lower-case copies if they are not made.
    figures["first_search_ms"] = driver.execute_async_script(FILTER, "the answer is 1")
    searches = [driver.execute_async_script(FILTER, q) for q in ("12", "addition-47", "zzz", "")]
    figures["slowest_search_ms"] = max(searches)
    keys = ("wrong", "truncated", "error", "all")
    clicks = [driver.execute_async_script(CLICK, f"[data-key={key}]") for key in keys]
    figures["slowest_filter_ms"] = max(clicks)
    return {key: round(value, 1) for key, value in figures.items()}


if __name__ == "__main__":
    sys.exit(main())
