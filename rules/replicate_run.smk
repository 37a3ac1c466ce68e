"""A merged run in, the share of its answers that a second engine gives identically out."""


rule replicate_run:
    """Answer a random sample of a run again in a fresh engine, in other company."""
    input:
        run=ancient(ask.replication.run),
        prompts=ancient(ask.replication.prompts),
        stages=ancient(ask.engine.stages),
    output:
        manifest="results/replications/{replication}/manifest.json",
        replication="results/replications/{replication}/replication.json",
    log:
        "logs/replicate_run/{replication}.log",
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
        identity=ask.replication.identity,
        run=ask.replication.run_folder,
        parts=ask.engine.parts,
        few_shot=ask.replication.few_shot,
        tuning=ask.engine.tuning,
    shell:
        "exec {params.step} python -m scripts.replicate_run"
        " --identity {params.identity:q} --run {params.run:q} --prompts {input.prompts:q}"
        " {params.few_shot:q} {params.parts:q} --tuning {params.tuning:q}"
        " --output {output.manifest:q} > {log:q} 2>&1"
