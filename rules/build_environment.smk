"""Lock files in, an interpreter with vLLM out."""


rule build_environment:
    """Build one environment from its lock files, verified package by package."""
    input:
        locks=ancient(ask.environment.locks),
    output:
        manifest="results/environments/{environment}/manifest.json",
    log:
        "logs/build_environment/{environment}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        identity=ask.environment.identity,
        source=ask.environment.source,
    shell:
        "python -m scripts.build_environment"
        " --identity {params.identity:q} {params.source:q}"
        " --output {output.manifest:q} > {log:q} 2>&1"
