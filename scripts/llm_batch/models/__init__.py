"""Models and LoRA adapters: which files decide an answer, how large they are, whose code runs."""
