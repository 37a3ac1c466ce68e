"""Config in, plan out: validation, addresses and the functions that the rules ask.

Names here land among Snakemake's own, so nothing that it might use itself is imported by name.

Two conventions of all rules:

- Inputs are `ancient()`: an output's address, not a file's time, says whether it is up to date.
- Functions for params take `output`: Snakemake then does not track the value, because placement
  (paths, tuning) must re-run nothing and identity already is part of the output's path.
"""

import json
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = str(Path(workflow.basedir).resolve())
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from scripts.llm_batch import digests, errors, interrupts, slurm
from scripts.llm_batch.addresses import canonical_json
from scripts.llm_batch.config.load import load_config
from scripts.llm_batch.environments import external, sources
from scripts.llm_batch.evaluation import metric_files
from scripts.llm_batch.gpus import capacity
from scripts.llm_batch.plan import make, placement, starting

placement.make_programs_callable(Path(ROOT))
if workflow.is_main_process:
    interrupts.pass_interrupts_on()

STAGE_FOLDER = r"[A-Za-z0-9][A-Za-z0-9._+-]*-[0-9a-f]{12}"

try:
    MEMO = digests.DigestMemo(Path("results/.digests.json"), logger.info)
    CONFIG = load_config(config, [Path(path) for path in workflow.configfiles])
    EXTERNALS = external.ExternalRecords(Path("results/.externals.json"))
    GPUS = capacity.limit_gpus(workflow)
    PLAN = make.make_plan(
        CONFIG, Path(ROOT) / "envs", MEMO, externals=EXTERNALS, gpus=GPUS
    )
    MEMO.save()
except errors.WorkflowError as error:
    raise WorkflowError(str(error)) from None

RESULTS = placement.Results(PLAN, Path("results"))

if CONFIG.auto and workflow.is_main_process:
    logger.info(str(CONFIG.auto))

if PLAN.unpinned:
    logger.warning(placement.unpinned_message(PLAN, workflow.configfiles))


def refuse_to_start():
    """What can be known to fail is told before the first job, in a line."""
    try:
        starting.refuse_to_start(
            workflow, CONFIG, PLAN, Path(ROOT) / "envs", asked_engine
        )
    except errors.WorkflowError as error:
        raise WorkflowError(str(error)) from None


def tell_report():
    """Say where the report is, if there is one: a part of the chain makes none."""
    page = Path(f"results/experiments/{PLAN.experiment}/report.html")
    if page.exists():
        print(f"report: {page}")


def environment_locks(wildcards):
    """The files that decide an environment; none for an interpreter that is there."""
    return list(PLAN.environments[wildcards.environment][1].locks)


def environment_source(wildcards, output):
    """Where an environment comes from, as words of a command line."""
    found = PLAN.environments[wildcards.environment][1]
    return sources.build_words(found, CONFIG.wheelhouse)


def environment_identity(wildcards, output):
    return canonical_json(PLAN.environments[wildcards.environment][0].identity)


def model_identity(wildcards, output):
    return canonical_json(PLAN.models[wildcards.model].stage.identity)


def model_source(wildcards, output):
    return placement.source_words(PLAN.models[wildcards.model])


def adapter_identity(wildcards, output):
    return canonical_json(PLAN.adapters[wildcards.adapter].stage.identity)


def adapter_source(wildcards, output):
    return placement.source_words(PLAN.adapters[wildcards.adapter])


def judged_runs(wildcards):
    """The manifests of the runs that prompts are made from."""
    folders = PLAN.derived[wildcards.prompts].runs
    return [f"results/runs/{folder}/manifest.json" for folder in folders]


def judged_prompts(wildcards):
    """The prompts files that these runs were asked from, each once."""
    return sorted(set(PLAN.derived[wildcards.prompts].prompts_paths))


def derived_identity(wildcards, output):
    return canonical_json(PLAN.derived[wildcards.prompts].stage.identity)


def judged_run_folders(wildcards, output):
    return [f"results/runs/{folder}" for folder in PLAN.derived[wildcards.prompts].runs]


def judged_prompts_files(wildcards, output):
    """The prompts file of each judged run, in the order of the runs."""
    return list(PLAN.derived[wildcards.prompts].prompts_paths)


def task_stages(wildcards):
    """The environment of the harness, and the model whose tokenizer is used."""
    return RESULTS.task_manifests(PLAN.tasks[wildcards.task])


def task_harness(wildcards, output):
    """What the harness is told, as words of a command line."""
    return RESULTS.task_words(PLAN.tasks[wildcards.task])


def batch_prompts(wildcards):
    """The data files, and manifests of data sets, of all runs in a batch."""
    runs = RESULTS.batch(wildcards.batch).runs
    paths = {path for run in runs for path in (run.prompts_path, run.few_shot_path)}
    return sorted(path for path in paths if path)


def data_set_identity(wildcards, output):
    return canonical_json(PLAN.data_sets[wildcards.dataset].identity)


def batch_spec(wildcards, output):
    return canonical_json(placement.batch_spec(RESULTS.batch(wildcards.batch)))


def asking_batch(wildcards):
    """The batch whose engine is asked: its own, or that of the run that is replicated."""
    if "replication" in wildcards.keys():
        return RESULTS.run_batch(RESULTS.replications[wildcards.replication][1])
    return wildcards.batch


def asked_engine(wildcards):
    """The engine that a job asks."""
    return RESULTS.engine(asking_batch(wildcards))


def batch_stage_folders(wildcards):
    """The environment, the model and the adapters of a batch; nothing for a dummy engine."""
    return RESULTS.stage_manifests(asking_batch(wildcards))


def engine_spec(wildcards, output):
    return canonical_json(asked_engine(wildcards).stage.identity)


def engine_folder(wildcards, output):
    return asked_engine(wildcards).stage.folder


def engine_tuning(wildcards, output):
    return canonical_json(asked_engine(wildcards).tuning)


def engine_parts(wildcards, output):
    """Where the parts of an engine lie, as words of a command line; none for a dummy engine."""
    return RESULTS.engine_parts(asking_batch(wildcards))


def batch_gpus(wildcards):
    return asked_engine(wildcards).gpus


def batch_nodes(wildcards):
    return asked_engine(wildcards).nodes


def leader_gpus(wildcards):
    """The GPUs on the node of the job's own process; all of them, where the engine has no other."""
    return batch_gpus(wildcards) // batch_nodes(wildcards)


def node_gpus(wildcards):
    """What snakemake-executor-plugin-slurm gives the step of this process; else all GPUs."""
    return leader_gpus(wildcards) if batch_nodes(wildcards) > 1 else None


def node_gres(wildcards):
    """As many GPUs on each node, of the model that the profile asks for."""
    gpus, nodes = batch_gpus(wildcards), batch_nodes(wildcards)
    if nodes == 1 or not gpus:
        return None
    asked = workflow.resource_settings.overwrite_resources.get("generate", {})
    model = asked["gpu_model"].raw if "gpu_model" in asked else None
    return slurm.per_node(gpus, nodes, model)


def node_tasks(wildcards):
    """Without GPUs SLURM takes no more nodes than tasks."""
    nodes = batch_nodes(wildcards)
    return nodes if nodes > 1 and not batch_gpus(wildcards) else None


def batch_threads(wildcards):
    """Local CPU engines take all cores, so that two of them never share; others take one."""
    uses_cpu = RESULTS.uses_cpu(asking_batch(wildcards))
    if workflow.remote_exec or workflow.non_local_exec or slurm.has_steps(os.environ):
        return slurm.threads(leader_gpus(wildcards), uses_cpu)
    # Without --cores there are none, as with --report: then nothing is run.
    return (workflow.resource_settings.cores or 1) if uses_cpu else 1


def batch_step(wildcards, output, threads):
    """What starts a job on its own GPUs in an allocation of SLURM; nothing elsewhere."""
    if workflow.remote_exec:
        return ""
    return slurm.step(os.environ, threads, leader_gpus(wildcards))


def run_batch(wildcards):
    return f"results/batches/{RESULTS.run_batch(wildcards.run)}/manifest.json"


def run_completions(wildcards):
    return RESULTS.run_completions(wildcards.run)


def run_shard_facts(wildcards):
    return RESULTS.run_shard_facts(wildcards.run)


def run_batch_folder(wildcards, input):
    return input.batch.rpartition("/")[0]


def run_identity(wildcards, output):
    return canonical_json(PLAN.runs[wildcards.run].stage.identity)


def evaluated_run(wildcards):
    return f"results/runs/{RESULTS.evaluated_run(wildcards.evaluation)}/manifest.json"


def asked_run_folder(wildcards, input):
    return input.run.rpartition("/")[0]


def evaluation_scorer(wildcards):
    """What else is needed to score a run: for a task its requests and the harness."""
    return RESULTS.scorer_manifests(wildcards.evaluation)


def evaluation_scorer_words(wildcards, output):
    return RESULTS.scorer_words(wildcards.evaluation)


def evaluation_identity(wildcards, output):
    return canonical_json(RESULTS.evaluation(wildcards.evaluation).identity)


def evaluation_files(wildcards, output):
    """The Python files of the evaluation's metrics: their digests are identity, paths are not."""
    identity = RESULTS.evaluation(wildcards.evaluation).identity
    return canonical_json(metric_files.metric_files(CONFIG, identity))


def evaluation_name(wildcards, output):
    return RESULTS.evaluation(wildcards.evaluation).name


def replicated_run(wildcards):
    return (
        f"results/runs/{RESULTS.replications[wildcards.replication][1]}/manifest.json"
    )


def replicated_prompts(wildcards):
    return PLAN.runs[RESULTS.replications[wildcards.replication][1]].prompts_path


def replicated_few_shot(wildcards, output):
    run = PLAN.runs[RESULTS.replications[wildcards.replication][1]]
    return ["--few-shot", run.few_shot_path] if run.few_shot_path else []


def replication_identity(wildcards, output):
    return canonical_json(RESULTS.replications[wildcards.replication][0].identity)


def report_sources(wildcards, output):
    """The report's identity, the folders that it is made from, and the config, to be shown."""
    return json.dumps({**placement.report_sources(PLAN), "config": config})


def error_limits(wildcards, output):
    """Where the facts of each run lie, and the share of its completions that may be errors."""
    return canonical_json(placement.error_limits(PLAN))


def reproduce_command(wildcards, output):
    """The command line that asks for the same again."""
    return placement.reproduce_command(
        workflow.configfiles, workflow.config_settings.config, CONFIG
    )


def experiment_record(wildcards):
    """The experiment as one string: here a change must re-run, so Snakemake tracks it."""
    return canonical_json(placement.experiment_record(PLAN))
