"""The config: read once while the Snakefile is parsed, checked, and turned into records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.llm_batch.config.automatic import Chooser, resolve_auto
from scripts.llm_batch.config.build import build_config
from scripts.llm_batch.config.checks import cross_problems, missing_sections
from scripts.llm_batch.config.engines import ENVS
from scripts.llm_batch.config.errors import (
    COMMAND_LINE,
    Problem,
    SourceFile,
    duplicate_keys,
    load_sources,
    locate,
    raise_problems,
    replaced,
    value_at,
    yaml_value,
)
from scripts.llm_batch.config.oneoff import apply_one_off, blame
from scripts.llm_batch.config.records import Config
from scripts.llm_batch.config.schema import to_plain, validate
from scripts.llm_batch.config.sweeps import expand_sweeps
from scripts.llm_batch.doctor.auto import choose_here
from scripts.llm_batch.doctor.choose import Choice
from scripts.llm_batch.errors import ConfigError


def choose_auto() -> Choice:
    """Return what `environment: auto` is on this machine."""
    return choose_here(ENVS)


def load_config(
    raw: Mapping[str, Any], sources: Sequence[Path], choose: Chooser = choose_auto
) -> Config:
    """Return the checked config.

    `raw` is Snakemake's merged config, `sources` the config files in the order of merging, read
    for line numbers and for keys that are written twice; `choose` says which environment `auto`
    is. Raises `ConfigError`, one line a problem (at most ten):
    `config/config.yaml:14: samplings.warm.n: expected …, found …`.
    """
    files = load_sources(sources)
    if not isinstance(raw, Mapping) or not raw:
        where = files[-1].name if files else "config"
        found = "is empty" if not raw else f"is a {type(raw).__name__}, not a mapping"
        raise ConfigError(f"{where}: the config {found}; begin with config/config.yaml as a model")
    raise_problems([problem for file in files for problem in duplicate_keys(file)], raw, files)
    config, problems = to_plain(raw)
    raise_problems(problems, raw, files)
    problems = validate(config)
    if problems:
        config, problems = _read_command_line(config, problems, files)
    raise_problems(problems, config, files)
    resolved, problems = apply_one_off(config, _experiment_given(config, files))
    problems += missing_sections(resolved)
    raise_problems(problems, config, files)
    # Runs that ask tasks only need none.
    expanded = expand_sweeps({**resolved, "samplings": resolved.get("samplings", {})})
    raise_problems(expanded.problems, config, files)
    final, choice, problems = resolve_auto(expanded.config, choose)
    located = expanded.located(problems or cross_problems(final))
    raise_problems([blame(config, problem) for problem in located], config, files)
    return replace(build_config(final), auto=choice)


def _read_command_line(
    config: Any, problems: Sequence[Problem], files: Sequence[SourceFile]
) -> tuple[Any, list[Problem]]:
    """Read numbers of the command line as numbers: Snakemake leaves those in mappings as text."""
    for problem in problems:
        text = value_at(config, problem.path)
        if isinstance(text, str) and locate(problem.path, config, files) == COMMAND_LINE:
            config = replaced(config, problem.path, yaml_value(text))
    return config, validate(config)


def _experiment_given(config: Mapping[str, Any], files: Sequence[SourceFile]) -> bool:
    return "experiment" in config and locate(("experiment",), config, files) == COMMAND_LINE
