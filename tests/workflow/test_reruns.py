"""Contracts on re-running, with the real snakemake command and the dummy engine."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import yaml

from scripts.llm_batch.addresses import read_json
from tests.workflow.project import Project, dummy_rows


def reordered(value: Any) -> Any:
    """Return `value` with the keys of every mapping in reverse order."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(list(value))}
    return value


def test_the_first_run_makes_every_stage(finished_project: Project) -> None:
    for stage, files in {
        "batches/toy-*": ("identity.json", "manifest.json", "reused.parquet", "batch.json"),
        "engines/toy-*": ("identity.json",),
        "runs/toy.questions.greedy-*": ("identity.json", "manifest.json", "completions.parquet"),
        "runs/toy.questions.warm-*": ("completions.jsonl", "failures.jsonl", "facts.json"),
        "evaluations/toy.questions.warm-*": ("identity.json", "manifest.json", "metrics.json"),
        "reports/rehearsal-*": (
            "identity.json",
            "manifest.json",
            "report.html",
            "tables/summary.csv",
        ),
        "experiments/rehearsal": ("experiment.json", "report.html", "runs/toy.questions.warm"),
    }.items():
        folder = finished_project.one(stage)
        for name in files:
            assert (folder / name).exists(), folder / name


def test_the_second_run_is_a_no_op(project: Project) -> None:
    assert project.run().nothing_to_do


def test_touching_every_file_re_runs_nothing(project: Project) -> None:
    now = time.time()
    for number, path in enumerate(sorted(project.folder.rglob("*"), reverse=True)):
        if path.is_file() and ".snakemake" not in path.parts:
            os.utime(path, (now + number, now + number))
    assert project.planned() == {}


def test_a_fresh_clone_with_copied_results_re_runs_nothing(
    project: Project, tmp_path: Path
) -> None:
    clone = project.copy_to(tmp_path / "clone", "results")
    assert not (clone.folder / ".snakemake").exists()
    for path in clone.folder.glob("Snakefile"):
        path.touch()
    assert clone.planned() == {}


def test_moving_the_folder_re_runs_nothing(project: Project, tmp_path: Path) -> None:
    moved = tmp_path / "a moved folder"
    shutil.move(project.folder, moved)
    assert Project(moved).planned() == {}


def test_reordered_config_keys_re_run_nothing(project: Project) -> None:
    config = project.read_config()
    project.write_config(reordered(config))
    assert project.read_config() == config
    assert project.planned() == {}


def test_another_shard_count_re_runs_nothing(project: Project) -> None:
    assert project.planned("--config", "shards=5") == {}


def test_other_tuning_re_runs_nothing(project: Project) -> None:
    config = project.read_config()
    config["engines"]["toy"]["tuning"] = {"max_num_seqs": 3, "shards": 2}
    project.write_config(config)
    assert project.planned() == {}


def test_edited_rules_and_scripts_re_run_nothing(project: Project) -> None:
    for path in [*project.folder.glob("scripts/*.py"), *project.folder.glob("rules/*.smk")]:
        path.write_text(path.read_text().replace(" --output", "  --output") + "\n# edited\n")
    assert project.planned() == {}


def test_a_renamed_sampling_asks_no_engine(project: Project) -> None:
    before = project.answered()
    config = project.read_config()
    config["samplings"]["hot"] = config["samplings"].pop("warm")
    config["runs"][0]["sampling"] = ["greedy", "hot"]
    project.write_config(config)
    project.run()
    assert project.answered() == before


def test_swapping_two_sampling_values_re_runs_exactly_that_run(project: Project) -> None:
    config = project.read_config()
    warm = config["samplings"]["warm"]
    warm["temperature"], warm["top_p"] = warm["top_p"], warm["temperature"]
    project.write_config(config)
    assert project.planned() == {
        "shard_prompts": 1,
        "generate": 1,
        "merge_run": 1,
        "evaluate_run": 1,
        "report": 1,
        "check_experiment": 1,
        "link_experiment": 1,
    }
    before = project.answered()
    project.run()
    assert project.answered() == before + 2 * 12
    assert len(list(project.folder.glob("results/runs/toy.questions.warm-*"))) == 2


def test_one_changed_prompt_row_asks_only_for_that_row(project: Project) -> None:
    rows = dummy_rows()
    rows[4]["question"] = "What has changed?"
    project.write_prompts(rows)
    before = project.answered()
    project.run()
    assert project.answered() == before + 3


def test_one_added_prompt_row_costs_one_request_per_sample(project: Project) -> None:
    project.write_prompts(dummy_rows(13))
    before = project.answered()
    project.run()
    assert project.answered() == before + 3


def test_old_answers_are_found_again_after_going_back(project: Project) -> None:
    project.write_prompts(dummy_rows(13))
    project.run()
    project.write_prompts(dummy_rows())
    assert project.planned() == {"link_experiment": 1}


def test_a_deleted_run_is_merged_again_without_an_engine(project: Project) -> None:
    folder = project.one("runs/toy.questions.warm-*")
    before = {path.name: path.read_bytes() for path in folder.glob("completions.*")}
    answered = project.answered()
    shutil.rmtree(folder)
    project.run()
    assert {path.name: path.read_bytes() for path in folder.glob("completions.*")} == before
    assert project.answered() == answered


def test_shard_count_does_not_change_merged_bytes(
    fresh_project: Project, finished_project: Project
) -> None:
    fresh_project.run("--config", "shards=5")
    for name in ("toy.questions.greedy", "toy.questions.warm"):
        pattern = f"runs/{name}-*/completions.parquet"
        merged = fresh_project.one(pattern).read_bytes()
        assert merged == finished_project.one(pattern).read_bytes()


def test_a_config_of_ones_own_is_not_mixed_with_the_default_one(project: Project) -> None:
    own = project.read_config()
    own["experiment"] = "own"
    own["samplings"]["warm"] = {"temperature": 0.9}
    (project.folder / "own.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    project.run("--configfile", "own.yaml")
    runs = (project.folder / "results/experiments/own/runs").resolve()
    sampling = read_json(runs / "toy.questions.warm" / "identity.json")
    assert sampling["identity"]["sampling"]["n"] == 1


def test_a_gpu_limit_on_the_command_line_is_accepted(project: Project) -> None:
    assert project.run("--resources", "gpu=2").nothing_to_do


def test_a_bumped_lock_re_runs_exactly_the_dependents(project: Project) -> None:
    config = project.read_config()
    config["engines"]["real"] = {"model": "toy", "environment": "cpu"}
    config["runs"].append({"engine": "real", "prompts": "questions", "sampling": "greedy"})
    project.write_config(config)
    before = project.planned()
    environments = [p for p in before if p == "build_environment"]
    assert environments and before["generate"] == 1
    plan = project.run("--dry-run").output
    lock = project.folder / "envs/cpu.requirements.txt"
    lock.write_text(lock.read_text() + "\n# bumped\n")
    bumped = project.run("--dry-run").output
    assert plan != bumped
    assert project.planned() == before


def test_a_reference_that_no_row_has_is_told_before_an_engine_starts(project: Project) -> None:
    config = project.read_config()
    config["prompts"]["questions"]["reference"] = "anser"
    project.write_config(config)
    before = project.answered()
    outcome = project.snakemake()
    assert outcome.code != 0
    assert "no row has the field 'anser' that the config names as reference" in outcome.output
    assert project.answered() == before


def test_a_template_that_no_row_can_fill_is_told_before_an_engine_starts(
    project: Project,
) -> None:
    config = project.read_config()
    config["prompts"]["questions"]["template"] = "{{ qestion }}"
    project.write_config(config)
    before = project.answered()
    outcome = project.snakemake()
    assert outcome.code != 0
    assert "did you mean 'question'?" in outcome.output
    assert project.answered() == before
