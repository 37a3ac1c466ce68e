"""A LoRA adapter's folder, or its repository on the hub, in; its checked files and links out."""


rule fetch_adapter:
    """Fetch an adapter's files if they are not there, check that vLLM can use them, link them."""
    output:
        manifest="results/adapters/{adapter}/manifest.json",
    log:
        "logs/fetch_adapter/{adapter}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        identity=ask.adapter.identity,
        source=ask.adapter.source,
    shell:
        "python -m scripts.fetch_adapter"
        " --identity {params.identity:q} {params.source:q}"
        " --output {output.manifest:q} > {log:q} 2>&1"
