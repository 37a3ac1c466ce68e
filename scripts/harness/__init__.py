"""lm-evaluation-harness on our side: runs in the environment `lm-eval`, which has no vLLM.

Twice for every run: `build` takes down the requests of a task, `score` hands our answers back.
Nothing here is imported by the workflow, and nothing of the workflow is imported here.
"""
