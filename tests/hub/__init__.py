"""Tests of everything that talks to a model hub: the real client against a stand-in hub."""
