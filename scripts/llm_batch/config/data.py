"""Checks of where prompts come from: files, data sets, filters, samples, few-shot examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scripts.llm_batch.config.errors import CONFIG_FILE, ConfigPath, Problem
from scripts.llm_batch.hub.source import COMMIT
from scripts.llm_batch.templates import filter_problem, template_problem

PLACES = ("path", "dataset", "from_run", "from_runs")
_OF_DATA_SETS = ("revision", "config", "split", "files")


def pin_problems(path: ConfigPath, revision: str | None) -> Iterator[Problem]:
    """Yield a problem for a branch or tag; none at all is pinned later, see `plan`."""
    if revision is not None and not COMMIT.fullmatch(revision):
        text = (
            f"'{revision}' can come to mean other files, a commit (40 hexadecimal digits) cannot; "
            f"`python -m scripts.pin {CONFIG_FILE}` writes the commit in its place"
        )
        yield Problem(path, text)


def data_problems(path: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with where the rows of a prompts section come from."""
    given = [key for key in PLACES if key in entry]
    if len(given) > 1:
        both = " and ".join(f"'{key}'" for key in given)
        yield Problem(path, f"has both {both}; keep the one that is meant")
    elif not given:
        text = (
            "the key 'path' is missing; add it: a data file; or 'dataset', on the hub, or "
            "'from_run', a run to judge"
        )
        yield Problem(path, text)
    elif given[0].startswith("from_") and not {"template", "messages"} & set(entry):
        text = "prompts about completions need 'template' or 'messages'; add one of them"
        yield Problem(path, text)
    for key in _OF_DATA_SETS:
        if key in entry and "dataset" not in entry:
            place = given[0] if given else "path"
            yield Problem((*path, key), f"without effect beside '{place}'; remove it")
    if "files" in entry and ("config" in entry or "split" in entry):
        text = "in place of 'config' and 'split'; keep one or the other"
        yield Problem((*path, "files"), text)
    if "dataset" in entry:
        yield from pin_problems((*path, "revision"), entry.get("revision"))
    if entry.get("sample_seed") is not None and entry.get("limit") is None:
        text = "says which rows of 'limit' are drawn; add limit, or remove it"
        yield Problem((*path, "sample_seed"), text)
    yield from _filter(path, entry)
    reference = entry.get("reference")
    if reference is not None and "{{" in reference:
        yield from _template((*path, "reference"), reference)
    if entry.get("few_shot"):
        yield from _few_shot((*path, "few_shot"), entry["few_shot"], entry)


def _filter(path: ConfigPath, entry: Mapping[str, Any]) -> Iterator[Problem]:
    if entry.get("filter") is not None:
        problem = filter_problem(entry["filter"])
        if problem:
            yield Problem((*path, "filter"), problem)


def _few_shot(
    path: ConfigPath, entry: Mapping[str, Any], prompts: Mapping[str, Any]
) -> Iterator[Problem]:
    yield from _filter(path, entry)
    if "path" in entry and "split" in entry:
        yield Problem(path, "has both 'path' and 'split'; keep the one that is meant")
    if "split" in entry and "dataset" not in prompts:
        yield Problem((*path, "split"), "only for a data set of the hub; write 'path'")
    if "split" in entry and "files" in prompts:
        yield Problem((*path, "split"), "without effect beside 'files'; write 'path'")
    form = next((key for key in ("template", "messages") if prompts.get(key) is not None), None)
    if form is None:
        text = (
            "needs prompts with 'template' or 'messages': rows with prompts of their own have none"
        )
        yield Problem(path, text)
        return
    if form not in entry:
        yield Problem(path, f"the key '{form}' is missing; add it: an example, like the prompt")
    other = "messages" if form == "template" else "template"
    if other in entry:
        yield Problem(
            (*path, other), f"the prompt has '{form}', so examples have it too; remove it"
        )
    texts = [((*path, "template"), entry["template"])] if "template" in entry else []
    for position, message in enumerate(entry.get("messages", ())):
        texts.append(((*path, "messages", position, "content"), message["content"]))
    for at, text in texts:
        yield from _template(at, text)


def _template(path: ConfigPath, text: str) -> Iterator[Problem]:
    problem = template_problem(text)
    if problem is not None:
        yield Problem(path, problem.message, line_offset=problem.line)
