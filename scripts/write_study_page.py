"""Write what was measured into a page of docs/: figures, tables and plots of a sampling study.

    python -m scripts.write_study_page results/experiments/top-p-top-k docs/top-p-top-k.md

The words of the page are written by hand; what lies between its two markers is made from the
experiment's results, and the plots are those of its report.html.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from scripts.llm_batch.addresses import read_json, write_text_atomic
from scripts.llm_batch.errors import WorkflowError, run_cli
from scripts.llm_batch.machine.read import read_machine
from scripts.llm_batch.report.extract import plots_of_page
from scripts.llm_batch.report.numbers import UNKNOWN, count, decimal, percent

MARKERS = ("<!-- measured: begin -->", "<!-- measured: end -->")
SWEPT = ("temperature", "top_p", "top_k")
SAMPLES = 4
ALIKE = 0.1
"""Settings vary alike whose mean numbers of different answers, of four, are so close."""

SMALLEST_P = 0.0001

OFF: Mapping[str, tuple[str, ...]] = {"top_p": ("", "1"), "top_k": ("", "0")}
"""How headline.csv writes a parameter that does nothing."""

METRIC = "right"
PLOTS = (
    f"swept-temperature-{METRIC}-accuracy",
    f"swept-top_p-{METRIC}-accuracy",
    f"swept-top_k-{METRIC}-accuracy",
    "swept-temperature-unique_answers",
    f"{METRIC}-diversity",
)

Line = Mapping[str, str]
Record = Mapping[str, Any]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path, help="results/experiments/<experiment>")
    parser.add_argument("page", type=Path, help="the page, with the two markers in it")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and, in a folder of its name, its plots; 0 on success."""
    arguments = build_parser().parse_args(argv)
    study = Study(arguments.experiment)
    page: Path = arguments.page
    pictures = write_pictures(study, page.with_suffix(""))
    text = page.read_text(encoding="utf-8")
    write_text_atomic(page, filled(page, text, measured(study, pictures)))
    print(f"{page}: written, with {len(pictures)} plots in {page.with_suffix('')}/")
    return 0


@dataclass(frozen=True)
class Setting:
    """A point of the sweep: the lines of headline.csv of its runs, one for each seed."""

    name: str
    lines: tuple[Line, ...]

    @property
    def params(self) -> tuple[str, ...]:
        """Temperature, top_p, top_k, as a reader writes them."""
        return tuple(
            "off" if self.lines[0][name] in OFF.get(name, ()) else self.lines[0][name]
            for name in SWEPT
        )

    @property
    def plain(self) -> bool:
        """Whether nothing but the temperature is set."""
        return self.params[1:] == ("off", "off")

    @property
    def greedy(self) -> bool:
        """Whether it always takes the likeliest token."""
        return float(self.params[0]) == 0

    def mean(self, column: str) -> float | None:
        """Return the mean of a figure over the seeds, None where it is not defined."""
        values = [float(line[column]) for line in self.lines if line[column]]
        return sum(values) / len(values) if values else None

    @property
    def variety(self) -> float:
        """Different answers as a share of a question's samples."""
        return self.mean("unique_answers") or 0.0


class Study:
    """What an experiment's folder holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = read_json(folder / "experiment.json")
        self.report = (folder / "report.html").resolve().parent
        self.comparisons = read_json(self.report / "comparisons.json")
        self.headline = self._table("headline.csv")
        self.engines = self._table("engines.csv")

    def _table(self, name: str) -> list[dict[str, str]]:
        with (self.report / "tables" / name).open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))

    @cached_property
    def settings(self) -> list[Setting]:
        """The points of the sweep, hotter ones below, what is off after what is on."""
        lines = {line["run"]: line for line in self.headline}
        found = [
            Setting(one["name"], tuple(lines[run] for run in one["runs"]))
            for one in self.comparisons["settings"]
        ]
        return sorted(found, key=lambda one: [_order(value) for value in one.params])

    @cached_property
    def pooled(self) -> dict[str, Record]:
        """The figure of each setting with several seeds, all of them together."""
        return {one["setting"]: one for one in self.comparisons["seeds"]}

    def right(self, one: Setting) -> tuple[float, float, float]:
        """Return the share of right answers, and its interval, of all seeds together."""
        if one.name in self.pooled:
            pooled = self.pooled[one.name]
            return pooled["value"], pooled["low"], pooled["high"]
        column = f"{METRIC}.accuracy"
        value, low, high = (
            float(one.lines[0][name]) for name in (column, f"{column}.low", f"{column}.high")
        )
        return value, low, high

    def between(self, one: Setting, other: Setting) -> Record:
        """Return the comparison of two settings; `difference` is that of `one` less `other`."""
        for found in self.comparisons["comparisons"]:
            if (found["a"], found["b"]) == (other.name, one.name):
                return dict(found)
            if (found["a"], found["b"]) == (one.name, other.name):
                low, high = (None if found[end] is None else -found[end] for end in ("high", "low"))
                return {**found, "difference": -found["difference"], "low": low, "high": high}
        raise WorkflowError(f"{self.report}: no comparison of {one.name} and {other.name}")


def _order(value: str) -> float:
    return float("inf") if value == "off" else float(value)


def measured(study: Study, pictures: Sequence[Path]) -> str:
    """Return what stands between the markers."""
    parts = [what_was_run(study), *map(picture_lines, pictures), *tables(study), alike(study)]
    return "\n" + "\n\n".join(parts) + "\n\n"


def what_was_run(study: Study) -> str:
    """Return the table of what was run, with addresses, versions and the kind of machine."""
    stages = study.folder.parents[1]
    run = next(iter(study.record["runs"].values()))["run"]
    identity = read_json(stages / "runs" / run / "identity.json")["identity"]["engine"]
    engine = read_json(stages / "runs" / run / "facts.json")["shards"][0]["engines"][0]
    seeds = max(len(one.lines) for one in study.settings)
    requests = sum(int(line["completions"]) for line in study.headline)
    questions = study.headline[0]["rows"]
    samples = max(int(line["n"]) for line in study.headline)
    day = datetime.fromisoformat(engine["started"])
    addresses = {
        "report": study.report.name.rpartition("-")[2],
        "engine": study.engines[0]["engine_address"],
        "model": identity["model"],
        "environment": identity["environment"],
    }
    lines = {
        "asked": f"{count(len(study.headline))} runs, {count(requests)} requests: "
        f"{questions} questions under {len(study.settings)} settings, each but the greedy one "
        f"with {seeds} seeds and {samples} samples a question and seed",
        "engine": f"vLLM {engine['version']}, torch {engine['torch']}, {engine['dtype']}, "
        f"`determinism: {identity['determinism']}`; engine starts: {len(study.engines)}",
        "machine": f"{read_machine(study.folder).cpu or 'unknown processor'}, "
        f"{os.cpu_count()} cores, no GPU",
        "date": f"{day.day} {day:%B %Y}",
        "addresses": ", ".join(f"{stage} `{address}`" for stage, address in addresses.items()),
    }
    return "| | |\n|---|---|\n" + "\n".join(f"| {key} | {text} |" for key, text in lines.items())


def tables(study: Study) -> Iterator[str]:
    """Yield a table for what has no truncation, and one for each temperature of the grid."""
    alone = [one for one in study.settings if one.plain]
    head = f"| temperature | {_figure_heads()} |"
    rows = [f"| {one.params[0]} | {_figure_cells(study, one)} |" for one in alone]
    yield "\n".join(["Temperature alone:", "", head, _ruler(head), *rows])
    head = f"| top_p | top_k | {_figure_heads()} | points more than neither | corrected p |"
    for base in alone:
        cut = [one for one in study.settings if one.params[0] == base.params[0] and not one.plain]
        if cut:
            rows = [_cut_row(study, one, base) for one in cut]
            title = f"Temperature {base.params[0]}, with top_p or top_k or both:"
            yield "\n".join([title, "", head, _ruler(head), *rows])


def _ruler(head: str) -> str:
    return "|" + "--:|" * (head.count("|") - 1)


def _figure_heads() -> str:
    return " | ".join(
        ["right, %", "seeds, %", "pass@4, %", "majority@4, %", "different answers of 4"]
    )


def _figure_cells(study: Study, one: Setting) -> str:
    value, low, high = map(percent, study.right(one))
    pooled = study.pooled.get(one.name)
    different = one.mean("unique_answers")
    cells = [
        f"{value} [{low}, {high}]",
        f"{percent(pooled['lowest'])}–{percent(pooled['highest'])}" if pooled else UNKNOWN,
        UNKNOWN if one.greedy else percent(one.mean(f"{METRIC}.pass@k")),
        percent(one.mean(f"{METRIC}.majority@n")),
        UNKNOWN if different is None else decimal(SAMPLES * different, 2),
    ]
    return " | ".join(cells)


def _cut_row(study: Study, one: Setting, base: Setting) -> str:
    found = study.between(one, base)
    _, top_p, top_k = one.params
    cells = [
        *(top_p, top_k, _figure_cells(study, one)),
        _points(found),
        _p_text(found),
    ]
    return f"| {' | '.join(cells)} |"


def _points(found: Record) -> str:
    points = [f"{100 * (found[key] or 0):+.1f}" for key in ("difference", "low", "high")]
    value, low, high = (text.replace("-", "−") for text in points)
    return value if found["low"] is None else f"{value} [{low}, {high}]"


def _p_text(found: Record) -> str:
    p = float(found["p_corrected"])
    text = "< 0.0001" if p < SMALLEST_P else f"{p:.2g}"
    return text if found["significant"] else f"{text}, not shown"


def alike(study: Study) -> str:
    """Return the table of settings that vary as much as a lower temperature alone does."""
    head = (
        "| temperature alone | different answers of 4 | right, % | hotter | top_p | top_k "
        "| different answers of 4 | points more | corrected p |"
    )
    alone = [one for one in study.settings if one.plain and not one.greedy]
    rows = [
        _alike_row(study, base, one)
        for base in alone
        for one in study.settings
        if not one.plain and float(one.params[0]) > float(base.params[0])
        if SAMPLES * abs(one.variety - base.variety) <= ALIKE
    ]
    title = "Settings whose answers vary as much as those of a lower temperature alone:"
    return "\n".join([title, "", head, _ruler(head), *rows])


def _alike_row(study: Study, base: Setting, one: Setting) -> str:
    found = study.between(one, base)
    cells = [
        *(base.params[0], decimal(SAMPLES * base.variety, 2), percent(study.right(base)[0])),
        *(*one.params, decimal(SAMPLES * one.variety, 2), _points(found), _p_text(found)),
    ]
    return f"| {' | '.join(cells)} |"


def write_pictures(study: Study, folder: Path) -> list[Path]:
    """Write the plots of the report as SVG files of their own; raises `WorkflowError` for none."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{key}.svg" for key in PLOTS]
    plots = plots_of_page((study.report / "report.html").read_text(encoding="utf-8"), PLOTS)
    for path, plot in zip(paths, plots, strict=True):
        write_text_atomic(path, plot)
    return paths


def picture_lines(path: Path) -> str:
    """Return the line that shows a picture beside the page."""
    found = re.search(r'aria-label="(.*?)"', path.read_text(encoding="utf-8"))
    return f"![{found[1] if found else path.stem}]({path.parent.name}/{path.name})"


def filled(page: Path, text: str, content: str) -> str:
    """Return the page with `content` between its markers."""
    begin, end = (text.find(marker) for marker in MARKERS)
    if begin < 0 or end < begin:
        raise WorkflowError(f"{page}: the lines '{MARKERS[0]}' and '{MARKERS[1]}' are missing")
    return text[: begin + len(MARKERS[0]) + 1] + content + text[end:]


if __name__ == "__main__":
    run_cli(main)
