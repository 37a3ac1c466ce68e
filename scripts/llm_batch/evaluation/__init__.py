"""What a run's completions are worth: scores, statistics and their document."""
