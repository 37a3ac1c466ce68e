"""Completions of a run in, a score for each and the run's metrics with intervals out."""


rule evaluate_run:
    """Score the completions of one run and summarise them."""
    input:
        run=ancient(ask.evaluation.run),
        scorer=ancient(ask.evaluation.scorer),
    output:
        manifest="results/evaluations/{evaluation}/manifest.json",
        scores="results/evaluations/{evaluation}/scores.parquet",
        metrics="results/evaluations/{evaluation}/metrics.json",
    log:
        "logs/evaluate_run/{evaluation}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        identity=ask.evaluation.identity,
        run=ask.evaluation.run_folder,
        name=ask.evaluation.name,
        files=ask.evaluation.files,
        scorer=ask.evaluation.scorer_words,
    shell:
        "python -m scripts.evaluate_run"
        " --run {params.run:q} --identity {params.identity:q} --name {params.name:q}"
        " --files {params.files:q} {params.scorer:q}"
        " --scores {output.scores:q} --metrics {output.metrics:q} > {log:q} 2>&1"
