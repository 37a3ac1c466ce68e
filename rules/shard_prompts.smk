"""Prompts files and earlier answers in, what each run expects and the open requests out."""


rule shard_prompts:
    """Turn the prompts of a batch into requests and cut those still open into shards."""
    input:
        prompts=ancient(ask.batch.prompts),
    output:
        manifest="results/batches/{batch}/manifest.json",
        requests=directory("results/batches/{batch}/requests"),
        ledger=directory("results/batches/{batch}/ledger"),
        reused="results/batches/{batch}/reused.parquet",
    log:
        "logs/shard_prompts/{batch}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        batch=ask.batch.spec,
    shell:
        "python -m scripts.shard_prompts"
        " --batch - --results results"
        " --output {output.manifest:q} <<< {params.batch:q} > {log:q} 2>&1"
