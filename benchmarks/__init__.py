"""Benchmarks of waiting, whole jobs, importing, resuming and uploading, beside the alternatives that users have.

Repeat them with ``make bench``. Each measures the public API of the provider, not its internals.
"""
