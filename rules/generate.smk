"""Open requests of a shard in, their completions and the facts of the engine out."""


rule generate:
    """Answer one shard of a batch with one engine on its own GPUs."""
    input:
        batch=ancient("results/batches/{batch}/manifest.json"),
        requests=ancient("results/batches/{batch}/requests"),
        stages=ancient(ask.engine.stages),
    output:
        completions="results/batches/{batch}/completions/{shard}.parquet",
        facts="results/batches/{batch}/facts/{shard}.json",
    log:
        "logs/generate/{batch}/{shard}.log",
    benchmark:
        "benchmarks/generate/{batch}/{shard}.tsv"
    conda:
        "../envs/workflow.yaml"
    threads: ask.engine.threads
    resources:
        gpu=ask.engine.gpus,
        # SLURM would take the GPUs of a job from any number of nodes.
        nodes=ask.engine.nodes,
        # What an engine over several nodes has on each; other jobs do not have these.
        gpus=ask.engine.node_gpus,
        gres=ask.engine.node_gres,
        tasks=ask.engine.node_tasks,
    params:
        step=ask.engine.step,
        engine=ask.engine.identity,
        folder=ask.engine.folder,
        tuning=ask.engine.tuning,
        parts=ask.engine.parts,
    shell:
        "exec {params.step} python -m scripts.generate"
        " --requests {input.requests:q}/{wildcards.shard}.jsonl"
        " --journals results/engines/{params.folder:q}/journals"
        " --journal-name {wildcards.batch:q}.{wildcards.shard}"
        " {params.parts:q} --engine {params.engine:q} --tuning {params.tuning:q}"
        " --completions {output.completions:q} --facts {output.facts:q}"
        " > {log:q} 2>&1"
