"""A data set on the hub in, the files of its splits, checked, and links to them out."""


rule fetch_dataset:
    """Fetch the files of a data set's splits if they are not there, check and link them."""
    output:
        manifest="results/datasets/{dataset}/manifest.json",
    log:
        "logs/fetch_dataset/{dataset}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        identity=ask.dataset.identity,
    shell:
        "python -m scripts.fetch_dataset"
        " --identity {params.identity:q}"
        " --output {output.manifest:q} > {log:q} 2>&1"
