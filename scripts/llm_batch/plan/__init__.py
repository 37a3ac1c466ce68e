"""From a config to the plan: every stage folder there will be, and what the rules ask of it."""
