"""A model folder, or a repository on the hub, in; its checked file list and a link to it out."""


rule fetch_model:
    """Fetch a model's files if they are not there, check every one, and link them."""
    output:
        manifest="results/models/{model}/manifest.json",
    log:
        "logs/fetch_model/{model}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        identity=ask.model.identity,
        source=ask.model.source,
    shell:
        "python -m scripts.fetch_model"
        " --identity {params.identity:q} {params.source:q}"
        " --output {output.manifest:q} > {log:q} 2>&1"
