"""Benchmarks: ``python -m tests.benchmarks`` (see ``--help``)."""
