"""Engines' environments: what decides one, how it is built, and how it is checked."""
