"""The chain from environment to report, drawn: every node with its name and its address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from scripts.llm_batch.addresses import canonical_json, folder_address
from scripts.llm_batch.report import numbers
from scripts.llm_batch.report.figures import sampling_setting, sampling_settings
from scripts.llm_batch.report.records import Experiment, Run

BOX_WIDTH, BOX_HEIGHT = 198, 42
GAP_X, GAP_Y = 44, 12
TITLE_HEIGHT = 30
MOST_RUNS = 24
"""More runs are counted, not drawn."""

NAME_CHARACTERS, DETAIL_CHARACTERS = 24, 29
KINDS = (
    *("environment", "model", "engine", "prompts", "sampling"),
    *("run", "more", "evaluation", "report"),
)
"""Kinds of boxes, from top to bottom where they share a column."""

COLUMNS = (
    "environment, model",
    "engine, prompts, sampling",
    "run",
    "evaluation",
    "report",
)


@dataclass(frozen=True)
class Node:
    """A box: `key` is unique, `target` is the id of what on the page tells more."""

    key: str
    kind: str
    name: str
    detail: str
    target: str | None = None


@dataclass
class Graph:
    """Boxes by column, in the order they were met, and the arrows between them."""

    columns: tuple[dict[str, Node], ...] = field(default_factory=lambda: tuple({} for _ in COLUMNS))
    arrows: dict[tuple[str, str], None] = field(default_factory=dict)

    def add(self, column: int, node: Node, *before: Node) -> Node:
        """Add a box unless it is there, with arrows from the boxes `before` it."""
        node = self.columns[column].setdefault(node.key, node)
        self.arrows.update({(source.key, node.key): None for source in before})
        return node


def identity_id(stage: str, address: str) -> str:
    """Return the id under which the page tells the identity of an address."""
    return f"identity-{stage}-{address}"


def chain_svg(experiment: Experiment) -> str:
    """Return the drawn chain of an experiment as an SVG element."""
    graph = Graph()
    report = Node("report", "report", experiment.name, experiment.address)
    for run in experiment.runs[:MOST_RUNS]:
        _add_run(graph, experiment, run, report)
    _add_judged(graph, experiment.runs[:MOST_RUNS])
    more = len(experiment.runs) - MOST_RUNS
    if more > 0:
        graph.add(2, Node("more", "more", f"and {more} more runs", "listed below"))
    return _draw(graph)


def _add_run(graph: Graph, experiment: Experiment, run: Run, report: Node) -> None:
    _, prompts, sampling = run.parts
    before = list(_engine_sources(graph, experiment, run))
    address = run.engine_address
    detail = f"dummy · {address}" if run.is_dummy else address
    target = identity_id("engines", address)
    engine_node = graph.add(
        1, Node(f"e{address}", "engine", run.engine_name or "engine", detail, target), *before
    )
    address = run.prompts_address
    target = identity_id("prompts", address)
    prompts_node = graph.add(
        1, Node(f"p{address}", "prompts", prompts or "prompts", address, target)
    )
    key = canonical_json(run.identity["sampling"])
    words = _sampling_words(run)
    sampling_node = graph.add(1, Node(f"s{key}", "sampling", sampling or "sampling", words))
    run_node = graph.add(
        2,
        Node(f"r{run.index}", "run", run.label, run.address, f"run-{run.address}"),
        *(engine_node, prompts_node, sampling_node),
    )
    if run.evaluation is not None:
        address = folder_address(run.evaluation)
        metrics = ", ".join(dict.fromkeys(v.metric for v in run.values if v.metric)) or "no metric"
        node = Node(f"v{address}", "evaluation", metrics, address, f"run-{run.address}")
        graph.add(4, report, graph.add(3, node, run_node))


def _add_judged(graph: Graph, runs: Sequence[Run]) -> None:
    """Add an arrow from each judged run to the prompts that are made from its completions."""
    drawn = {run.address: f"r{run.index}" for run in runs}
    for run in runs:
        for address in run.prompts.get("from_runs", []):
            if address in drawn:
                graph.arrows[drawn[address], f"p{run.prompts_address}"] = None


def _engine_sources(graph: Graph, experiment: Experiment, run: Run) -> Iterable[Node]:
    stages = (("environment", experiment.environments), ("model", experiment.models))
    for kind, known in stages:
        address = run.engine.get(kind)
        if address and not run.is_dummy:
            name = known[address].name if address in known else kind
            target = identity_id(f"{kind}s", address) if address in known else None
            yield graph.add(0, Node(f"{kind}{address}", kind, name, address, target))


def _sampling_words(run: Run) -> str:
    names = [name for name in sampling_settings([run]) if name != "max_tokens"]
    found = [(name, sampling_setting(run, name)) for name in names]
    short = {"temperature": "T"}
    return ", ".join(f"{short.get(k, k)} {numbers.setting(v)}" for k, v in found if v is not None)


def _draw(graph: Graph) -> str:
    tallest = max(len(column) for column in graph.columns)
    height = TITLE_HEIGHT + tallest * (BOX_HEIGHT + GAP_Y)
    width = len(COLUMNS) * BOX_WIDTH + (len(COLUMNS) - 1) * GAP_X
    places: dict[str, tuple[float, float]] = {}
    boxes = []
    for number, column in enumerate(graph.columns):
        x = number * (BOX_WIDTH + GAP_X)
        if column:
            boxes.append(f'<text class="column" x="{x}" y="14">{escape(COLUMNS[number])}</text>')
        free = height - TITLE_HEIGHT - len(column) * BOX_HEIGHT
        step = free / (len(column) + 1) if column else 0
        nodes = sorted(column.values(), key=lambda node: KINDS.index(node.kind))
        for place, node in enumerate(nodes):
            y = TITLE_HEIGHT + step * (place + 1) + BOX_HEIGHT * place
            places[node.key] = (x, y)
            boxes.append(_box(node, x, y))
    arrows = [_arrow(*places[a], *places[b]) for a, b in graph.arrows]
    return (
        f'<svg class="chain" viewBox="-1 0 {width + 2} {height:g}" role="img" '
        f'aria-label="From environment and model to the report">{"".join(arrows + boxes)}</svg>'
    )


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    start, end, middle = x1 + BOX_WIDTH, x2, BOX_HEIGHT / 2
    kind = "arrow"
    if x2 < x1:
        start, end, kind = x1, x2 + BOX_WIDTH, "arrow judged"
    bend = (end - start) / 2
    y1, y2 = y1 + middle, y2 + middle
    return (
        f'<path class="{kind}" d="M{start:g},{y1:.1f}C{start + bend:g},{y1:.1f} '
        f'{end - bend:g},{y2:.1f} {end:g},{y2:.1f}"/>'
    )


def _box(node: Node, x: float, y: float) -> str:
    inside = (
        f'<rect x="{x}" y="{y:.1f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>'
        f'<text class="name" x="{x + 11}" y="{y + 18:.1f}">'
        f"{escape(_shorten(node.name, NAME_CHARACTERS))}</text>"
        f'<text class="detail" x="{x + 11}" y="{y + 33:.1f}">'
        f"{escape(_shorten(node.detail, DETAIL_CHARACTERS))}</text>"
        f"<title>{escape(f'{node.kind} {node.name}: {node.detail}')}</title>"
    )
    group = f'<g class="node {node.kind}">{inside}</g>'
    return f'<a href="#{escape(node.target)}">{group}</a>' if node.target else group


def _shorten(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"


def identities(experiment: Experiment, runs: Sequence[Run]) -> list[tuple[str, str, str, object]]:
    """Return (stage, name, address, identity) of everything the runs are made of, each once."""
    found: dict[tuple[str, str], tuple[str, str, str, object]] = {}

    def add(stage: str, name: str | None, address: str, identity: object) -> None:
        found.setdefault((stage, address), (stage, name or "", address, identity))

    for stage, known in (("environments", experiment.environments), ("models", experiment.models)):
        for address, folder in known.items():
            add(stage, folder.name, address, folder.identity)
    for run in runs:
        add("engines", run.engine_name, run.engine_address, run.engine)
    for run in runs:
        add("prompts", run.parts[1], run.prompts_address, run.prompts)
    return list(found.values())
