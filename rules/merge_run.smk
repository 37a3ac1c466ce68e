"""Answers of a batch in, the completions of one run in the order of its prompts out."""


rule merge_run:
    """Sort the answers of a batch back to one run."""
    input:
        batch=ancient(ask.run.batch),
        completions=ancient(ask.run.completions),
        facts=ancient(ask.run.shard_facts),
    output:
        manifest="results/runs/{run}/manifest.json",
        completions="results/runs/{run}/completions.parquet",
        lines="results/runs/{run}/completions.jsonl",
        failures="results/runs/{run}/failures.jsonl",
        facts="results/runs/{run}/facts.json",
    log:
        "logs/merge_run/{run}.log",
    benchmark:
        "benchmarks/merge_run/{run}.tsv"
    conda:
        "../envs/workflow.yaml"
    params:
        identity=ask.run.identity,
        batch=ask.run.batch_folder,
    shell:
        "python -m scripts.merge_run"
        " --identity {params.identity:q} --batch {params.batch:q}"
        " --completions {input.completions:q}"
        " --output {output.manifest:q} > {log:q} 2>&1"
