"""Tasks of lm-evaluation-harness as prompts: their addresses, their requests, their scores.

The harness itself runs in an environment of its own, see `scripts.harness`.
"""
