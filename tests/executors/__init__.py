"""Tests of ``executors``."""
