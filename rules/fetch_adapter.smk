"""A LoRA adapter's folder in, its checked file list and a link to it out."""


rule fetch_adapter:
    """Check that an adapter's files are those of the plan and of use to vLLM, and link them."""
    output:
        manifest="results/adapters/{adapter}/manifest.json",
    log:
        "logs/fetch_adapter/{adapter}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        identity=adapter_identity,
        path=adapter_path,
    shell:
        "python -m scripts.fetch_adapter"
        " --identity {params.identity:q} --path {params.path:q}"
        " --output {output.manifest:q} > {log:q} 2>&1"
