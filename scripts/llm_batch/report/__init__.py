"""The report of an experiment: what its stage folders say, as one page, two CSVs and a table."""
