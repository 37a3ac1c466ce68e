"""llm-batch-inference: these models × these prompts × these sampling settings, offline, with vLLM.

A table of contents: each file in `rules/` is one stage, in the order of execution.
"""

from snakemake.utils import min_version

min_version("9.0")


# A config of one's own replaces the quickstart's; Snakemake would mix the two.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


report: "rules/captions/workflow.rst"


include: "rules/common.smk"
include: "rules/build_environment.smk"
include: "rules/fetch_model.smk"
include: "rules/fetch_adapter.smk"
include: "rules/fetch_dataset.smk"
include: "rules/derive_prompts.smk"
include: "rules/build_task.smk"
include: "rules/shard_prompts.smk"
include: "rules/generate.smk"
include: "rules/merge_run.smk"
include: "rules/evaluate_run.smk"
include: "rules/replicate_run.smk"
include: "rules/report.smk"
include: "rules/targets.smk"


wildcard_constraints:
    environment=STAGE_FOLDER,
    model=STAGE_FOLDER,
    dataset=STAGE_FOLDER,
    adapter=STAGE_FOLDER,
    prompts=STAGE_FOLDER,
    task=STAGE_FOLDER,
    batch=STAGE_FOLDER,
    run=STAGE_FOLDER,
    evaluation=STAGE_FOLDER,
    replication=STAGE_FOLDER,
    report=STAGE_FOLDER,
    shard=r"\d+",


# On a cluster these run beside snakemake: they need a network, or take seconds.
localrules:
    all,
    environments,
    models,
    runs,
    replicate,
    tasks,
    build_environment,
    fetch_model,
    fetch_adapter,
    fetch_dataset,
    build_task,
    derive_prompts,
    shard_prompts,
    merge_run,
    evaluate_run,
    report,
    check_experiment,
    link_experiment,


rule all:
    """Answer every run of the experiment, compare them in one report, and judge its errors."""
    default_target: True
    input:
        f"results/experiments/{ask.plan.experiment}/experiment.json",
        f"results/reports/{ask.plan.report.folder}/verdict.json",
        collect("results/runs/{folder}/manifest.json", folder=ask.plan.runs),
        collect(
            "results/evaluations/{folder}/manifest.json", folder=ask.evaluation.folders
        ),


onstart:
    START.refuse()


onsuccess:
    START.tell_report()
