"""Who computes on which GPU: choosing cards, leasing them to one engine, watching what they do."""
