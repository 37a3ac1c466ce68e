"""Data files of every format, as rows: read, filtered, drawn, and made into few-shot examples."""
