"""A model folder in, its checked file list and a link to it out."""


rule fetch_model:
    """Check that a model's files are those of the plan, and link them."""
    output:
        manifest="results/models/{model}/manifest.json",
    log:
        "logs/fetch_model/{model}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        identity=model_identity,
        path=model_path,
    shell:
        "python -m scripts.fetch_model"
        " --identity {params.identity:q} --path {params.path:q}"
        " --output {output.manifest:q} > {log:q} 2>&1"
