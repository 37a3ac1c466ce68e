"""Will it run here? Environments against machines, and engines against models and machines."""
