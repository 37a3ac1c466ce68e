"""Tests that open pages in a real browser, and the made-up results that they show."""
