"""A merged run in, the share of its answers that a second engine gives identically out."""


rule replicate_run:
    """Answer a random sample of a run again in a fresh engine, in other company."""
    input:
        run=ancient(replicated_run),
        prompts=ancient(replicated_prompts),
        stages=ancient(batch_stage_folders),
    output:
        manifest="results/replications/{replication}/manifest.json",
        replication="results/replications/{replication}/replication.json",
    log:
        "logs/replicate_run/{replication}.log",
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
        identity=replication_identity,
        run=asked_run_folder,
        parts=engine_parts,
        few_shot=replicated_few_shot,
        tuning=engine_tuning,
    shell:
        "exec {params.step} python -m scripts.replicate_run"
        " --identity {params.identity:q} --run {params.run:q} --prompts {input.prompts:q}"
        " {params.few_shot:q} {params.parts:q} --tuning {params.tuning:q}"
        " --output {output.manifest:q} > {log:q} 2>&1"
