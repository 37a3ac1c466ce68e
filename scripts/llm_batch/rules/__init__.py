"""What the files in `rules/` ask of the plan, and what is done when Snakemake starts."""
