"""Runs and evaluations of an experiment in, its report, its verdict and its links out."""


rule report:
    """Compare the runs of an experiment in one self-contained page."""
    input:
        runs=ancient(
            collect("results/runs/{folder}/manifest.json", folder=ask.plan.runs)
        ),
        evaluations=ancient(
            collect(
                "results/evaluations/{folder}/manifest.json",
                folder=ask.evaluation.folders,
            )
        ),
        replications=ancient(
            collect(
                "results/replications/{folder}/manifest.json",
                folder=ask.replication.folders,
            )
        ),
    output:
        manifest="results/reports/{report}/manifest.json",
        report=report(
            "results/reports/{report}/report.html",
            caption="captions/page.rst",
            category="Report",
            labels={"item": "Page"},
        ),
        markdown=report(
            "results/reports/{report}/report.md",
            caption="captions/markdown.rst",
            category="Report",
            labels={"item": "Text for a pull request"},
        ),
        config=report(
            "results/reports/{report}/config.yaml",
            caption="captions/config.rst",
            category="Report",
            labels={"item": "Config"},
        ),
        comparisons="results/reports/{report}/comparisons.json",
        tables=report(
            directory("results/reports/{report}/tables"),
            patterns=["{table}.csv"],
            caption="captions/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        plots=report(
            directory("results/reports/{report}/plots"),
            patterns=["{plot}.svg"],
            caption="captions/plot.rst",
            category="Plots",
            labels={"plot": "{plot}"},
        ),
    log:
        "logs/report/{report}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        sources=ask.experiment.sources,
        command=ask.experiment.reproduce_command,
    shell:
        "python -m scripts.report"
        " --sources - --command {params.command:q}"
        " --report {output.report:q}"
        " <<< {params.sources:q} > {log:q} 2>&1"


rule check_experiment:
    """Fail, after everything else is written, if a run has too many errors or a gate fails."""
    input:
        report=ancient("results/reports/{report}/manifest.json"),
        comparisons=ancient("results/reports/{report}/comparisons.json"),
        runs=ancient(collect("results/runs/{folder}/facts.json", folder=ask.plan.runs)),
    output:
        verdict="results/reports/{report}/verdict.json",
    log:
        "logs/check_experiment/{report}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        limits=ask.experiment.error_limits,
    shell:
        "python -m scripts.check_experiment"
        " --limits - --comparisons {input.comparisons:q}"
        " --output {output.verdict:q} <<< {params.limits:q} > {log:q} 2>&1"


rule link_experiment:
    """Give people names: link the newest run of this config under the experiment's name."""
    input:
        report=ancient(f"results/reports/{ask.plan.report.folder}/manifest.json"),
    output:
        experiment="results/experiments/{experiment}/experiment.json",
    log:
        "logs/link_experiment/{experiment}.log",
    conda:
        "../envs/workflow.yaml"
    params:
        experiment=ask.experiment.record,
    shell:
        "python -m scripts.link_experiment"
        " --experiment - --output {output.experiment:q}"
        " <<< {params.experiment:q} > {log:q} 2>&1"
