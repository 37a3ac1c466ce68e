"""Names of fields in rows that are made from completions of other runs; see `judged`."""

JUDGED_ROW = "judged_row"
"""The line, in the first prompts file, of the row that was answered and is judged.

Intervals draw these: verdicts on several completions of one row are not independent."""

ORDER = "order"
"""Of a row about two runs: `ab` or `ba`, whose completion is shown first."""

FAVOURED = "favoured"
"""Of a row about two runs: the letter, A or B, under which the first of them is shown."""
