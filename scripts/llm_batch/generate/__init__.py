"""How a shard is answered: the supervisor of engines, the journals it reads, what it writes."""
