"""A task of lm-evaluation-harness and a model's tokenizer in, its requests out."""


rule build_task:
    """Let lm-evaluation-harness write the requests of one task for one model."""
    input:
        stages=ancient(ask.task.stages),
    output:
        manifest="results/tasks/{task}/manifest.json",
        prompts="results/tasks/{task}/prompts.jsonl",
        record="results/tasks/{task}/task.json",
    log:
        "logs/build_task/{task}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        harness=ask.task.harness,
    shell:
        "python -m scripts.build_task"
        " {params.harness:q} --output {output.manifest:q} > {log:q} 2>&1"
