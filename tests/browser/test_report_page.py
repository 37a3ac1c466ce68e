"""The report in a real browser: what people do with it, and what hostile texts cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from tests.browser.chromium import (
    chromium,
    console_errors,
    installed,
    open_report,
    requested_urls,
    set_screen,
)
from tests.browser.made_up_results import HOSTILE, MadeUp, make_results

pytestmark = pytest.mark.skipif(
    installed() is None, reason="no chromium and chromedriver: apt-get install them"
)

ROWS = 1000
MOST_BYTES = 800_000
"""Weight of the made-up page: 1 000 rows, 17 000 completions, five plots."""

CONTRASTS = """
const channels = (text) => text.match(/[\\d.]+/g).map(Number);
const solid = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const [r, g, b, a = 1] = channels(getComputedStyle(e).backgroundColor);
    if (a > 0.99) return [r, g, b];
  }
  return [255, 255, 255];
};
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const low = [];
for (const element of document.querySelectorAll("body *:not(script):not(style)")) {
  const text = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data).join("");
  if (!text.trim() || !element.getClientRects().length) continue;
  if (element.closest("title,option,noscript,:disabled")) continue;
  const style = getComputedStyle(element);
  const front = channels(element instanceof SVGElement ? style.fill : style.color);
  let back = solid(element);
  if (element.closest("svg.chain a, svg.chain g.node")) {
    back = channels(getComputedStyle(document.querySelector("svg.chain rect")).fill);
  }
  const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) low.push(`${ratio.toFixed(2)} ${element.tagName} ${text.trim().slice(0, 40)}`);
}
return low;
"""


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    results = make_results(tmp_path_factory.mktemp("results"), rows=ROWS)
    results.write_report()
    return results


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium() as driver:
        yield driver


@pytest.fixture
def page(made_up: MadeUp, browser: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    set_screen(browser, 1280, 900)
    open_report(browser, made_up.report / "report.html")
    yield browser
    assert console_errors(browser) == []


def one(page: webdriver.Chrome, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def texts(page: webdriver.Chrome, selector: str) -> list[str]:
    found = page.find_elements(By.CSS_SELECTOR, selector)
    return [element.text for element in found if element.is_displayed()]


def shown_count(page: webdriver.Chrome) -> int:
    """Return the number of rows that the count line says are shown."""
    return int(one(page, "#count").text.split(" of ")[0].replace("\u202f", ""))


def search(page: webdriver.Chrome, text: str) -> None:
    query = one(page, "#query")
    query.clear()
    query.send_keys(text)


def scores_of(made_up: MadeUp, run: int) -> dict[str, list[float]]:
    """Return the scores of each row's samples, as the evaluation wrote them."""
    table = pq.read_table(made_up.evaluations[run] / "scores.parquet").to_pylist()
    found: dict[str, list[float]] = {}
    for line in table:
        found.setdefault(line["row"], []).append(line["number"])
    return found


def test_opening_the_page_asks_nobody_for_anything(
    made_up: MadeUp, browser: webdriver.Chrome
) -> None:
    requested_urls(browser)
    file = made_up.report / "report.html"

    open_report(browser, file)

    assert requested_urls(browser) == [file.resolve().as_uri()]
    assert console_errors(browser) == []


def test_the_page_weighs_what_it_should_and_says_so(
    made_up: MadeUp, page: webdriver.Chrome
) -> None:
    weight = (made_up.report / "report.html").stat().st_size

    assert weight < MOST_BYTES
    assert f"one file of {weight / 1000:.0f} kB" in one(page, "footer").text


def test_every_section_and_plot_is_there(page: webdriver.Chrome) -> None:
    sections = [e.get_attribute("id") for e in page.find_elements(By.CSS_SELECTOR, "main>section")]
    plots = page.find_elements(By.CSS_SELECTOR, ".plot > svg")

    assert sections == [
        *("runs", "comparisons", "plots", "rows", "failures"),
        *("engines", "determinism", "provenance", "files"),
    ]
    assert len(plots) == 11
    engines = page.find_elements(By.CSS_SELECTOR, "#engines .plot:not(#plot-startup) > svg")
    assert len(engines) == 2
    for plot in plots:
        # The plots of engines have a bar for each, and here there is one.
        least = 60 if plot in engines else 100
        assert plot.size["width"] > 220 and plot.size["height"] > least


def test_a_heading_sorts_the_table_both_ways_and_back(page: webdriver.Chrome) -> None:
    runs = "#runs tbody th"
    heading = one(page, "#runs th.estimate button")
    original = texts(page, runs)

    heading.click()
    falling = texts(page, runs)
    heading.click()
    rising = texts(page, runs)
    heading.click()

    assert falling == ["greedy", "warm", "nucleus", "top5", "hot"]
    assert rising == falling[::-1]
    assert texts(page, runs) == original


def test_unknown_values_sort_last(page: webdriver.Chrome) -> None:
    heading = next(
        button
        for button in page.find_elements(By.CSS_SELECTOR, "#runs thead button")
        if button.text.startswith("majority")
    )

    heading.click()
    assert texts(page, "#runs tbody th")[-1] == "greedy"
    heading.click()
    assert texts(page, "#runs tbody th")[-1] == "greedy"


def test_the_filters_hold_the_rows_that_the_scores_say(
    made_up: MadeUp, page: webdriver.Chrome
) -> None:
    for run in (0, 4):
        Select(one(page, "#run-a")).select_by_value(str(run))
        scores = scores_of(made_up, run).values()

        one(page, "[data-key=wrong]").click()
        assert shown_count(page) == sum(min(row) < 1 for row in scores)
        one(page, "[data-key=never]").click()
        assert shown_count(page) == sum(max(row) < 1 for row in scores)
        one(page, "[data-key=all]").click()
        assert shown_count(page) == ROWS


def test_the_error_filter_shows_rows_with_their_error(page: webdriver.Chrome) -> None:
    one(page, "[data-key=error]").click()

    assert shown_count(page) == 4
    assert "prompt_" in one(page, "#detail .is-error pre").text
    assert set(texts(page, ".option .verdict")) == {"! error"}


def test_typing_searches_prompts_and_completions(page: webdriver.Chrome) -> None:
    search(page, "What is 47 + 71?")
    rows = shown_count(page)
    assert 0 < rows < ROWS
    assert set(texts(page, ".option .prompt")) == {"What is 47 + 71?"}
    assert texts(page, "#detail mark.hit") == ["What is 47 + 71?"]

    search(page, "zebra crossing")
    assert shown_count(page) == 0
    assert "No row passes" in one(page, "#detail").text


def test_the_list_is_walked_by_keyboard(page: webdriver.Chrome) -> None:
    one(page, "body").send_keys("/")
    assert page.switch_to.active_element.get_attribute("id") == "query"
    page.switch_to.active_element.send_keys("addition-4", Keys.ARROW_DOWN)
    rows = one(page, "#list")
    assert page.switch_to.active_element == rows

    first = one(page, "#detail h3").text
    rows.send_keys(Keys.ARROW_DOWN)
    second = one(page, "#detail h3").text
    rows.send_keys(Keys.END)
    last = one(page, "#detail h3").text
    rows.send_keys(Keys.HOME)

    assert len({first, second, last}) == 3
    assert one(page, "#detail h3").text == first
    chosen = one(page, ".option[aria-selected=true]")
    assert rows.get_attribute("aria-activedescendant") == chosen.get_attribute("id")


def test_only_rows_that_are_seen_exist(page: webdriver.Chrome) -> None:
    rows = one(page, "#list")
    rows.send_keys(Keys.END)

    assert len(page.find_elements(By.CSS_SELECTOR, ".option")) < 60
    assert any(name.endswith(f"-{ROWS}") for name in texts(page, ".option .id"))


def test_two_runs_stand_side_by_side_with_their_differences(
    made_up: MadeUp, page: webdriver.Chrome
) -> None:
    Select(one(page, "#run-a")).select_by_visible_text("warm")
    Select(one(page, "#run-b")).select_by_visible_text("hot")
    one(page, "[data-key=texts]").click()
    rows = shown_count(page)
    assert 0 < rows < ROWS

    pairs = page.find_elements(By.CSS_SELECTOR, ".pair.two")
    assert len(pairs) == 4
    marked = 0
    for pair in pairs:
        left, right = pair.find_elements(By.CSS_SELECTOR, ".answer pre")
        if left.text != right.text:
            marked += len(pair.find_elements(By.CSS_SELECTOR, "mark.out, mark.in"))
        else:
            assert not pair.find_elements(By.CSS_SELECTOR, "mark.out, mark.in")
    assert marked
    first, second = scores_of(made_up, 1), scores_of(made_up, 4)
    one(page, "[data-key=scores]").click()
    assert shown_count(page) == sum(set(first[row]) != set(second[row]) for row in first)


def test_a_run_cannot_stand_beside_itself(page: webdriver.Chrome) -> None:
    Select(one(page, "#run-b")).select_by_visible_text("hot")
    Select(one(page, "#run-a")).select_by_visible_text("hot")

    assert Select(one(page, "#run-b")).first_selected_option.text == "no other run"
    assert not one(page, "[data-key=texts]").is_displayed()


def visible_form(text: str) -> str:
    """Return a completion as the page spells it out."""
    for hidden in ("\u202e", "\u202c", "\u0000", "\u200b", "\u2028", "\u2029"):
        text = text.replace(hidden, f"U+{ord(hidden):04X}")
    return text


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_hostile_completion_is_shown_and_not_obeyed(
    page: webdriver.Chrome, made_up: MadeUp, number: int
) -> None:
    table = pq.read_table(made_up.runs[0] / "completions.parquet").to_pylist()
    row = next(line["row"] for line in table if line["text"] == HOSTILE[number])
    elements = len(page.find_elements(By.CSS_SELECTOR, "body > *"))

    search(page, row)

    shown = one(page, "#detail .answer pre").get_attribute("textContent")
    expected = visible_form(HOSTILE[number]) or "empty"
    assert shown == expected[:20_000]
    assert page.title == "Made-up adder: what sampling costs"
    assert not page.find_elements(By.CSS_SELECTOR, "img, iframe, object, embed")
    assert len(page.find_elements(By.CSS_SELECTOR, "body > *")) == elements


def test_a_text_that_is_cut_says_how_long_it_is(page: webdriver.Chrome) -> None:
    search(page, "word word word")

    assert "The first part of 30,002 characters" in one(page, "#detail .taken").text


def test_an_example_of_a_failure_opens_its_row(page: webdriver.Chrome) -> None:
    button = one(page, ".examples [data-show-row]")

    button.click()

    assert one(page, "#detail h3").text.startswith(button.get_attribute("data-show-row") or "?")


def test_a_run_is_singled_out_in_the_plots(page: webdriver.Chrome) -> None:
    page.execute_script("document.querySelector('.legend [data-run=\"1\"]').click()")

    dimmed = page.find_elements(By.CSS_SELECTOR, ".plot .dim")
    assert dimmed
    for mark in dimmed:
        assert "--run-1)" not in (mark.get_attribute("fill") or "")
    one(page, '.legend [data-run="1"]').click()


def test_a_box_of_the_chain_opens_what_was_hashed(page: webdriver.Chrome) -> None:
    link = one(page, '.chain a[href^="#identity-engines"]')
    target = (link.get_dom_attribute("href") or "").partition("#")[2]
    assert one(page, f"#{target}").get_attribute("open") is None

    page.execute_script(
        "arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", link
    )

    page.implicitly_wait(2)
    assert one(page, f"#{target}[open] pre").text.startswith("{")


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_no_screen_is_too_narrow(page: webdriver.Chrome, width: int) -> None:
    set_screen(page, width, 800)

    assert page.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_has_enough_contrast(page: webdriver.Chrome, dark: bool) -> None:
    set_screen(page, 1280, 900, dark=dark)
    page.execute_script("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    Select(one(page, "#run-a")).select_by_visible_text("warm")
    Select(one(page, "#run-b")).select_by_visible_text("hot")

    for key in ("texts", "error"):
        one(page, f"[data-key={key}]").click()
        assert page.execute_script(CONTRASTS) == []


def test_a_report_of_dummy_answers_carries_a_banner(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    results = make_results(tmp_path, rows=8, samplings=["greedy", "hot"], backend="dummy")

    open_report(browser, results.write_report())

    banner = one(browser, "header .banner")
    assert banner.is_displayed()
    assert "answers are not from a model" in banner.text
    assert console_errors(browser) == []


def test_with_two_metrics_table_and_plots_show_one_at_a_time(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    metrics = {"number": {"type": "numeric_match"}, "whole": {"type": "exact_match"}}
    results = make_results(tmp_path, rows=8, samplings=["greedy", "hot"], metrics=metrics)
    open_report(browser, results.write_report())
    set_screen(browser, 1280, 900)

    for metric, other in (("whole", "number"), ("number", "whole")):
        one(browser, f"#runs [data-choose-metric={metric}]").click()
        headings = " ".join(texts(browser, "#runs thead th"))
        assert f"{metric} accuracy" in headings and f"{other} accuracy" not in headings
        assert one(browser, f"#plot-{metric}-by-run").is_displayed()
        assert not one(browser, f"#plot-{other}-by-run").is_displayed()
        assert Select(one(browser, "#metric")).first_selected_option.text == metric
    assert console_errors(browser) == []


def test_paper_is_light_and_wide_enough(page: webdriver.Chrome) -> None:
    set_screen(page, 764, 1000)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    page.execute_script("dispatchEvent(new Event('beforeprint'))")

    width = page.execute_script("return document.documentElement.scrollWidth")
    background = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})

    assert background == "rgb(255, 255, 255)"
    assert width <= 800


def test_a_report_without_metrics_or_rows_raises_no_error(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    for number, options in enumerate(({"rows": 0}, {"rows": 5})):
        results = make_results(
            tmp_path / str(number), rows=8, samplings=["hot"], metrics={}, options=options
        )
        open_report(browser, results.write_report())
        assert console_errors(browser) == []
