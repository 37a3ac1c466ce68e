"""Command-line programs of the workflow, one a rule; the library they share is `llm_batch`."""
