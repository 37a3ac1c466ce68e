"""The config: its schema, the checks beyond it, and the records that it becomes (`load`)."""
