"""Open requests of a shard in, their completions and the facts of the engine out."""


rule generate:
    """Answer one shard of a batch with one engine on its own GPUs."""
    input:
        batch=ancient("results/batches/{batch}/manifest.json"),
        requests=ancient("results/batches/{batch}/requests"),
        stages=ancient(batch_stage_folders),
    output:
        completions="results/batches/{batch}/completions/{shard}.parquet",
        facts="results/batches/{batch}/facts/{shard}.json",
    log:
        "logs/generate/{batch}/{shard}.log",
    benchmark:
        "benchmarks/generate/{batch}/{shard}.tsv"
    conda:
        "../envs/workflow.yaml"
    threads: batch_threads
    resources:
        gpu=batch_gpus,
        # SLURM would take the GPUs of a job from any number of nodes.
        nodes=batch_nodes,
        # What an engine over several nodes has on each; other jobs do not have these.
        gpus=node_gpus,
        gres=node_gres,
        tasks=node_tasks,
    params:
        step=batch_step,
        engine=engine_spec,
        folder=engine_folder,
        tuning=engine_tuning,
        parts=engine_parts,
    shell:
        "exec {params.step} python -m scripts.generate"
        " --requests {input.requests:q}/{wildcards.shard}.jsonl"
        " --journals results/engines/{params.folder:q}/journals"
        " --journal-name {wildcards.batch:q}.{wildcards.shard}"
        " {params.parts:q} --engine {params.engine:q} --tuning {params.tuning:q}"
        " --completions {output.completions:q} --facts {output.facts:q}"
        " > {log:q} 2>&1"
