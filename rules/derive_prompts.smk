"""One merged run, or two on the same rows, in; the rows of prompts about their completions out."""


rule derive_prompts:
    """Make the rows of prompts from the completions of other runs."""
    input:
        runs=ancient(ask.prompts.runs),
        prompts=ancient(ask.prompts.files),
    output:
        manifest="results/prompts/{prompts}/manifest.json",
        rows="results/prompts/{prompts}/rows.jsonl",
    log:
        "logs/derive_prompts/{prompts}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        identity=ask.prompts.identity,
        runs=ask.prompts.run_folders,
        prompts=ask.prompts.files_by_run,
    shell:
        "python -m scripts.derive_prompts"
        " --identity {params.identity:q}"
        " --runs {params.runs:q} --prompts {params.prompts:q}"
        " --output {output.rows:q} > {log:q} 2>&1"
