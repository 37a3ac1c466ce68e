"""The report of made-up results: figures, files, and what happens to unusual ones."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from scripts.llm_batch.addresses import read_json, write_json_atomic
from scripts.llm_batch.errors import WorkflowError
from scripts.llm_batch.report import page, write
from scripts.llm_batch.report.browser import script_json
from scripts.llm_batch.report.chain import chain_svg
from scripts.llm_batch.report.comparisons import p_text
from scripts.llm_batch.report.figures import Headline, headline
from scripts.llm_batch.report.gather import gather, short_labels
from scripts.llm_batch.report.palette import run_shape
from scripts.llm_batch.report.records import Run
from scripts.report import main
from tests.browser.made_up_results import HOSTILE, MadeUp, make_results

ROWS = 60


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    results = make_results(tmp_path_factory.mktemp("results"), rows=ROWS)
    results.write_report()
    return results


def page_of(results: MadeUp) -> str:
    return (results.report / "report.html").read_text("utf-8")


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def files_of(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


class Elements(HTMLParser):
    """Collects every element with its attributes, and the texts of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.styles: list[str] = []
        self._inside: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append((self.found[-1][1].get("type"), data))
        if self._inside == "style":
            self.styles.append(data)


def test_the_summary_holds_every_figure_of_the_evaluations(made_up: MadeUp) -> None:
    lines = lines_of(made_up.report / "tables/summary.csv")

    for folder in made_up.evaluations:
        metrics = read_json(folder / "metrics.json")
        own = [line for line in lines if line["run"] == metrics["run"]]
        for value in metrics["values"]:
            matching = [
                line
                for line in own
                if line["metric"] == (value["metric"] or "")
                and line["statistic"] == value["statistic"]
                and line["k"] == ("" if value["k"] is None else str(value["k"]))
            ]
            assert [float(line["value"]) for line in matching] == [value["value"]]


def test_the_headline_has_a_line_for_each_run_in_the_order_given(made_up: MadeUp) -> None:
    lines = lines_of(made_up.report / "tables/headline.csv")

    assert [line["run"] for line in lines] == [f.name.rpartition("-")[0] for f in made_up.runs]
    assert [line["temperature"] for line in lines] == ["0", "0.7", "1", "1", "1.3"]
    assert [line["top_p"] for line in lines] == ["", "", "0.9", "", ""]
    assert all(
        float(line["number.accuracy.low"])
        <= float(line["number.accuracy"])
        <= float(line["number.accuracy.high"])
        for line in lines
    )
    assert {line["completions"] for line in lines} == {str(ROWS), str(4 * ROWS)}


def test_the_page_allows_no_source_but_its_own_style_and_script(made_up: MadeUp) -> None:
    elements = Elements(page_of(made_up))

    policy = next(
        attrs["content"]
        for tag, attrs in elements.found
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    )
    [script] = [text for kind, text in elements.scripts if kind is None]
    for name, text in (("script-src", script), ("style-src", elements.styles[0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in (policy or "")
    assert "default-src 'none'" in (policy or "")
    assert len(elements.styles) == 1


def test_the_page_loads_no_file_and_links_only_to_those_beside_it(made_up: MadeUp) -> None:
    elements = Elements(page_of(made_up))

    for tag, attrs in elements.found:
        assert not {"src", "srcset", "action", "style"} & attrs.keys()
        link = attrs.get("href") or "#"
        assert link.startswith("#") or (tag == "a" and (made_up.report / link).is_file()), link
    assert {tag for tag, _ in elements.found}.isdisjoint({"link", "img", "iframe", "base"})


def test_links_inside_the_page_lead_somewhere(made_up: MadeUp) -> None:
    elements = Elements(page_of(made_up))

    ids = [attrs["id"] for _, attrs in elements.found if attrs.get("id")]
    targets = [attrs["href"] or "" for tag, attrs in elements.found if tag == "a"]
    links = {target[1:] for target in targets if target.startswith("#")}
    assert len(ids) == len(set(ids))
    assert links <= set(ids)


def test_hostile_completions_reach_the_page_as_data_only(made_up: MadeUp) -> None:
    html = page_of(made_up)

    [data] = [text for kind, text in Elements(html).scripts if kind == "application/json"]
    strings = json.loads(data)["strings"]
    assert HOSTILE[0] in strings
    assert not set("<>&") & set(data)
    assert html.count("<script") == html.count("</script>") == 2


@pytest.mark.parametrize("text", ["</script>", "<!--", "]]>", "&lt;", "\u2028\u2029"])
def test_json_in_a_script_element_cannot_end_it(text: str) -> None:
    written = script_json({"text": text})

    assert json.loads(written) == {"text": text}
    assert not set("<>&\u2028\u2029") & set(written)


def test_the_same_results_give_the_same_bytes(made_up: MadeUp, tmp_path: Path) -> None:
    copy = tmp_path / "results"
    shutil.copytree(made_up.root, copy)
    arguments = [word.replace(str(made_up.root), str(copy)) for word in made_up.arguments()]
    shutil.rmtree(copy / "reports")

    assert main(arguments) == 0

    written = copy / "reports" / made_up.report.name
    files = files_of(made_up.report) - {"manifest.json"}
    assert files == files_of(written) - {"manifest.json"}
    for name in files:
        assert (written / name).read_bytes() == (made_up.report / name).read_bytes(), name


def test_the_manifest_lists_every_file_of_the_report(made_up: MadeUp) -> None:
    manifest = read_json(made_up.report / "manifest.json")

    assert set(manifest["files"]) == files_of(made_up.report) - {"identity.json", "manifest.json"}
    assert {"report.html", "report.md", "config.yaml"} < set(manifest["files"])
    assert read_json(made_up.report / "identity.json")["identity"] == made_up.identity


def test_answers_that_were_there_already_are_counted(made_up: MadeUp) -> None:
    facts = [read_json(folder / "facts.json") for folder in made_up.runs]
    reused, requested = (sum(fact[key] for fact in facts) for key in ("reused", "requested"))

    text = page_of(made_up).replace("\u202f", "")
    assert f"{reused} of {requested} answers came from results already there" in text


def test_a_batch_is_told_once_however_many_runs_it_answered(made_up: MadeUp) -> None:
    assert page_of(made_up).count('<article class="batch">') == 1


def test_the_command_that_reproduces_is_on_the_page(made_up: MadeUp) -> None:
    assert made_up.command in page_of(made_up)


def test_the_table_for_pull_requests_has_a_line_for_each_run(made_up: MadeUp) -> None:
    text = (made_up.report / "report.md").read_text("utf-8")
    text = text.partition("####")[0]

    assert len(re.findall(r"^\| (?:greedy|warm|nucleus|top5|hot) \|", text, re.MULTILINE)) == 5
    assert "dummy" not in text.lower()


def test_a_dummy_engine_is_marked_everywhere(tmp_path: Path) -> None:
    results = make_results(tmp_path, rows=8, samplings=["greedy", "hot"], backend="dummy")

    page = results.write_report().read_text("utf-8")

    assert "Dummy engine:</strong> answers are not from a model" in page
    assert "dummy engine: answers are not from a model</span>" in page
    assert "Determinism" not in page
    assert (
        "Dummy engine: answers are not from a model" in (results.report / "report.md").read_text()
    )


def test_runs_without_metrics_still_have_a_report(tmp_path: Path) -> None:
    results = make_results(tmp_path, rows=8, samplings=["greedy", "hot"], metrics={})

    page = results.write_report().read_text("utf-8")

    assert "accuracy" not in Elements(page).styles[0]
    assert 'id="plot-lengths"' in page
    assert "number.accuracy" not in (results.report / "tables/headline.csv").read_text()


def test_completions_that_a_metric_could_not_score_are_told(tmp_path: Path) -> None:
    results = make_results(tmp_path, rows=8, samplings=["greedy", "hot"])
    document = read_json(results.evaluations[1] / "metrics.json")
    document["metrics"]["number"]["errors"]["failed"] = 3
    document["metrics"]["number"]["first_failure"] = "row 'r1', sample 0: ValueError: <boom>"
    write_json_atomic(results.evaluations[1] / "metrics.json", document)

    told = "number: 3 of 40 completions (hot 3) could not be scored; they are in no figure."

    assert told in results.write_report().read_text("utf-8")
    assert f"{told} First: row 'r1', sample 0: ValueError: \\<boom\\>" in (
        results.report / "report.md"
    ).read_text("utf-8")


def test_a_setting_that_a_run_does_not_have_is_not_said_of_all(tmp_path: Path) -> None:
    def table(samplings: list[str]) -> Headline:
        made = make_results(tmp_path / samplings[0], rows=4, samplings=samplings)
        return headline(gather(made.identity, made.runs, made.evaluations, made.command))

    greedy_too, sampled = table(["greedy", "hot"]), table(["warm", "hot"])

    assert "seed" not in dict(greedy_too.shared)
    assert "seed" in [column.key for column in greedy_too.columns]
    assert dict(sampled.shared)["seed"] == "0"


def test_a_single_run_has_a_report(tmp_path: Path) -> None:
    results = make_results(tmp_path, rows=8, samplings=["hot"])

    page = results.write_report().read_text("utf-8")

    assert "The run:" in page
    assert "adder-cpu.chat.hot" in page


def test_two_metrics_have_columns_and_plots_of_their_own(tmp_path: Path) -> None:
    metrics = {"number": {"type": "numeric_match"}, "whole": {"type": "exact_match"}}
    results = make_results(tmp_path, rows=12, samplings=["greedy", "hot"], metrics=metrics)

    page = results.write_report().read_text("utf-8")

    for metric in metrics:
        assert f'id="plot-{metric}-by-run"' in page
        assert f"{metric} accuracy" in page


def test_runs_above_what_a_plot_can_show_are_told_not_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = make_results(tmp_path, rows=4)
    for module in (page, write):
        monkeypatch.setattr(module, "MOST_DRAWN", len(results.runs) - 1)
    text = results.write_report().read_text("utf-8")
    assert f"{len(results.runs)} runs are more than a plot can show one by one" in text
    assert "data-run=" not in text.split('<section id="plots"')[1].split("</section>")[0]
    assert not list((results.report / "plots").glob("lengths*.svg"))


def test_no_row_is_held_if_the_config_says_so(tmp_path: Path) -> None:
    results = make_results(tmp_path, rows=8, samplings=["greedy"], options={"rows": 0})

    page = results.write_report().read_text("utf-8")

    assert 'id="data"' not in page
    assert 'id="rows"' not in page


def test_a_batch_that_asked_no_engine_says_so(tmp_path: Path) -> None:
    results = make_results(tmp_path, rows=8, samplings=["greedy"])
    for folder in results.runs:
        facts = read_json(folder / "facts.json")
        shard = facts["shards"][0] | {"engines": [], "answered": 0}
        write_json_atomic(folder / "facts.json", facts | {"shards": [shard]})

    page = results.write_report().read_text("utf-8")

    assert "No engine was started for this batch" in page
    assert 'id="plot-startup"' not in page


def test_unknown_facts_are_dashes(tmp_path: Path) -> None:
    results = make_results(tmp_path, rows=8, samplings=["greedy"])
    for folder in results.runs:
        facts = read_json(folder / "facts.json")
        for engine in (engine for shard in facts["shards"] for engine in shard["engines"]):
            engine.update(generate_s=None, kv_cache_tokens=None, startup_s={}, dtype=None)
        write_json_atomic(folder / "facts.json", facts)

    page = results.write_report().read_text("utf-8")

    assert "<dt>tokens/s out</dt><dd>–</dd>" in page
    assert '<dt>KV cache, tokens</dt><dd class="muted">–</dd>' in page
    assert '<dt>dtype</dt><dd class="muted">–</dd>' in page


def test_a_missing_evaluation_is_one_clear_line(made_up: MadeUp) -> None:
    arguments = replace(made_up, evaluations=made_up.evaluations[1:]).arguments()

    with pytest.raises(WorkflowError, match="is not among the evaluations"):
        main(arguments)


def test_a_run_that_the_identity_does_not_name_is_one_clear_line(
    made_up: MadeUp, tmp_path: Path
) -> None:
    stranger = tmp_path / "other.chat.greedy-0123456789ab"
    arguments = replace(made_up, runs=[stranger, *made_up.runs]).arguments()

    with pytest.raises(WorkflowError, match="has no run of this name"):
        main(arguments)


def test_broken_completions_are_one_clear_line(tmp_path: Path) -> None:
    results = make_results(tmp_path, rows=8, samplings=["greedy"])
    (results.runs[0] / "completions.parquet").write_bytes(b"PAR1 and then nothing")

    with pytest.raises(WorkflowError, match="cannot be read"):
        results.write_report()


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["e.chat.greedy", "e.chat.hot"], ["greedy", "hot"]),
        (["e.chat.hot", "f.chat.hot"], ["e", "f"]),
        (["e.chat.greedy", "f.chat.hot"], ["e.greedy", "f.hot"]),
        (["e.chat.greedy"], ["e.chat.greedy"]),
        (["mine", "e.chat.hot"], ["mine", "e.chat.hot"]),
        (["mine", "yours"], ["mine", "yours"]),
    ],
)
def test_labels_leave_out_what_all_runs_share(names: list[str], labels: list[str]) -> None:
    assert short_labels(names) == labels


def test_sixteen_runs_differ_in_colour_or_shape() -> None:
    looks = {(index % 8, run_shape(index)) for index in range(16)}

    assert len(looks) == 16


def test_every_table_is_there_as_csv_and_parquet_and_in_the_index(made_up: MadeUp) -> None:
    folder = made_up.report / "tables"
    index = read_json(folder / "datapackage.json")["resources"]
    page = page_of(made_up)

    assert {one["path"] for one in index} == {path.name for path in folder.glob("*.csv")}
    assert {one["parquet"] for one in index} == {path.name for path in folder.glob("*.parquet")}
    for one in index:
        lines = lines_of(folder / one["path"])
        packed = pq.read_table(folder / one["parquet"])
        assert len(lines) == packed.num_rows == one["rows"]
        fields = [field["name"] for field in one["schema"]["fields"]]
        assert fields == packed.column_names
        assert not lines or fields == list(lines[0])
        for file in (one["path"], one["parquet"]):
            assert f'href="tables/{file}"' in page
    tables = {one["name"]: one["rows"] for one in index}
    assert tables["headline"] == tables["provenance"] == tables["determinism"] == 5
    assert tables["comparisons"] == 10 and tables["engines"] == 3
    assert tables["lengths"] and tables["failures"]


def test_both_forms_of_a_table_hold_the_same_numbers(made_up: MadeUp) -> None:
    folder = made_up.report / "tables"

    packed = pq.read_table(folder / "headline.parquet").to_pylist()

    for line, plain in zip(packed, lines_of(folder / "headline.csv"), strict=True):
        assert line["number.accuracy"] == float(plain["number.accuracy"])
        assert line["completions"] == int(plain["completions"])
        assert line["top_p"] == (float(plain["top_p"]) if plain["top_p"] else None)


def test_every_plot_is_a_file_with_its_colours_and_names(made_up: MadeUp) -> None:
    folder = made_up.report / "plots"
    names = {path.stem for path in folder.glob("*.svg")}

    assert names == set(re.findall(r'id="plot-([^"]+)"', page_of(made_up)))
    for path in folder.glob("*.svg"):
        svg = ElementTree.parse(path).getroot()
        assert float(svg.attrib["width"]) > 200 and float(svg.attrib["height"]) > 60
        text = path.read_text("utf-8")
        used = set(re.findall(r"var\((--[a-z]+-?\d*)\)", text))
        assert used <= set(re.findall(r"(--[a-z]+-?\d*):", text))
    for run in ("greedy", "warm", "nucleus", "top5", "hot"):
        assert f">{run}</text>" in (folder / "number-pass-at-k.svg").read_text("utf-8")


def test_a_p_that_the_test_cannot_make_smaller_is_a_bound(made_up: MadeUp) -> None:
    found = read_json(made_up.report / "comparisons.json")["comparisons"]

    bound = [one for one in found if one["p_at_most"]]
    assert bound and len(bound) < len(found)
    assert all(one["p"] <= 0.0001 for one in bound)
    assert not any(one["p_at_most"] for one in found if one["p"] > 0.0001)
    assert p_text({"p_corrected": 0.0015, "p_at_most": True}) == "≤ 0.0015"
    assert p_text({"p_corrected": 0.0015, "p_at_most": False}) == "0.0015"
    assert p_text({"p_corrected": 1e-30, "p_at_most": True}) == "< 0.0001"


def test_the_text_for_pull_requests_answers_what_a_reviewer_asks(made_up: MadeUp) -> None:
    text = (made_up.report / "report.md").read_text("utf-8")

    for heading in ("Comparisons: ", "Failures", "Reuse and determinism", "Engines", "Reproduce"):
        assert f"#### {heading}" in text
    assert "× `prompt_too_long`" in text
    assert "answers came from results already there" in text
    assert "not measured" in text
    assert "| 0.0.0 (made up) |" in text
    assert f"```bash\n{made_up.command}\n```" in text
    one = min(read_json(made_up.report / "comparisons.json")["comparisons"], key=lambda c: c["p"])
    assert f"| {100 * one['difference']:+.2f} pp | [{100 * one['low']:+.2f}, " in text
    assert re.search(r"\b\d+ of 1 020 completions are errors", text)
    # Every table is one: as many cells in each of its lines as in its head.
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_splits_of_one_data_set_are_not_taken_for_the_same_rows() -> None:
    def run_of(**prompts: str) -> Run:
        names = Run.__dataclass_fields__
        return Run(**{**dict.fromkeys(names), "identity": {"prompts": prompts}})  # type: ignore[arg-type]

    test = run_of(dataset="a/b", revision="c", split="test", template="x")

    assert test.data != run_of(dataset="a/b", revision="c", split="train", template="x").data
    assert test.data == run_of(dataset="a/b", revision="c", split="test", template="y").data


def test_the_chain_leads_from_a_judged_run_to_the_prompts_of_its_judge(made_up: MadeUp) -> None:
    judged, judge, *_ = gather(
        made_up.identity, made_up.runs, made_up.evaluations, made_up.command
    ).runs
    prompts = {"from_runs": [judged.address], "template": "x"}
    judge = replace(judge, identity={**judge.identity, "prompts": prompts})
    experiment = gather(made_up.identity, made_up.runs, made_up.evaluations, made_up.command)

    assert 'class="arrow judged"' not in chain_svg(experiment)
    drawn = chain_svg(replace(experiment, runs=(judged, judge)))
    assert drawn.count('class="arrow judged"') == 1
