"""Parts of the chain by name: `snakemake --cores all environments`, and so on."""


rule environments:
    """Build the environments only, for instance on a machine with a network."""
    input:
        collect(
            "results/environments/{folder}/manifest.json", folder=ask.plan.environments
        ),


rule models:
    """Fetch models, adapters and data sets only, for instance on a machine with a network."""
    input:
        collect("results/models/{folder}/manifest.json", folder=ask.plan.models),
        collect("results/adapters/{folder}/manifest.json", folder=ask.plan.adapters),
        collect("results/datasets/{folder}/manifest.json", folder=ask.plan.data_sets),


rule tasks:
    """Write the requests of all tasks of lm-evaluation-harness only."""
    input:
        collect("results/tasks/{folder}/manifest.json", folder=ask.plan.tasks),


rule runs:
    """Answer and merge every run, without evaluation and report."""
    input:
        collect("results/runs/{folder}/manifest.json", folder=ask.plan.runs),


rule replicate:
    """Answer a sample of each run a second time; `--config replicate=200` says how many."""
    input:
        collect(
            "results/replications/{folder}/manifest.json",
            folder=ask.replication.folders,
        ),
