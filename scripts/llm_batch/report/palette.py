"""Colours and shapes of the runs: safe for colour-blind readers, never colour alone."""

from __future__ import annotations

from typing import NamedTuple

LIGHT = ("#0067a5", "#c24e00", "#007a5a", "#a3427a", "#8a6100", "#4b5563", "#2b83ba", "#6f4aa0")
"""At least 3:1 on white; Okabe and Ito's palette, darkened where it was too pale."""

DARK = ("#56b4e9", "#ff8f4a", "#2fc6a0", "#e79bc8", "#e3b341", "#c3c9d1", "#9bd3f2", "#c0a5ea")
"""The same hues, at least 3:1 on the dark page."""

LEVEL_LIGHT = (
    *("#4b2991", "#3b5fa8", "#12829c", "#2c8562"),
    *("#6f7f14", "#a8690a", "#b8421f", "#8f1d3f"),
)
"""Values of a swept parameter, from low to high: at least 4.4:1 on white."""

LEVEL_DARK = (
    *("#b39ae8", "#8fb0ec", "#5fc6dd", "#6fd3a6"),
    *("#bfcf5c", "#f0b45a", "#ff9068", "#f2809f"),
)
"""The same hues, at least 6.6:1 on the dark page's cards."""

LEVELS = len(LEVEL_LIGHT)

SHAPES = (
    "circle",
    "square",
    "triangle-up",
    "diamond",
    "cross",
    "triangle-down",
    "triangle-right",
    "triangle-left",
)
"""Vega's names."""

SHAPE_PATHS = (
    "M8 3.5A4.5 4.5 0 1 1 8 12.5A4.5 4.5 0 1 1 8 3.5Z",
    "M4 4H12V12H4Z",
    "M8 3L13 12H3Z",
    "M8 2.5L13 8L8 13.5L3 8Z",
    "M6 3H10V6H13V10H10V13H6V10H3V6H6Z",
    "M8 13L3 4H13Z",
    "M13 8L4 13V3Z",
    "M3 8L12 3V13Z",
)
"""The same shapes in a box of 16 × 16, for the legend and the table."""

DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3))


class Ink(NamedTuple):
    """A colour that plots are drawn with, and the CSS variable it becomes on the page."""

    sentinel: str
    variable: str


MUTED = Ink("#010101", "--muted")
GRID = Ink("#020202", "--line")
TEXT = Ink("#030303", "--text")
CARD = Ink("#040404", "--card")
ACCENT = Ink("#050505", "--accent")
INKS = (MUTED, GRID, TEXT, CARD, ACCENT)


def run_ink(index: int) -> Ink:
    """Return the ink of a run: every run has its own variable, so that one can be singled out."""
    return Ink(f"#1{index:05x}", f"--run-{index}")


def phase_ink(index: int) -> Ink:
    """Return the ink of a start-up phase."""
    return Ink(f"#2{index:05x}", f"--phase-{index}")


def level_ink(index: int) -> Ink:
    """Return the ink of a value of a swept parameter."""
    return Ink(f"#3{index:05x}", f"--level-{index}")


def run_shape(index: int) -> int:
    """Return the number of a run's shape; the second eight runs go through the shapes again."""
    return (index + index // len(SHAPES)) % len(SHAPES)


def css_variables(runs: int) -> str:
    """Return the CSS that gives each run, and each level of a parameter, its colours."""

    def block(colours: tuple[str, ...], levels: tuple[str, ...]) -> str:
        of_runs = "".join(f"--run-{i}:{colours[i % len(colours)]};" for i in range(runs))
        return of_runs + "".join(f"--level-{i}:{colour};" for i, colour in enumerate(levels))

    marks = "".join(f".run-{i}{{color:var(--run-{i})}}" for i in range(runs))
    dark = block(DARK, LEVEL_DARK)
    return (
        f":root{{{block(LIGHT, LEVEL_LIGHT)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}{marks}"
    )
