"""The program that runs inside an engine's environment: standard library and vLLM only.

It is started as `<engine python> <repo>/scripts/worker --settings worker.json`, takes requests
from files, keeps a bounded window of them in the engine and appends every answer to a journal.
Syntax stays at Python 3.9, the oldest that the vLLM versions in question run on.
"""
