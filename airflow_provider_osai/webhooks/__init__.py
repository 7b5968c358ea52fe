"""Webhooks: the signed token, the ASGI app, the handler, rate limits, and resuming a deferred task.

A webhook is a hint: its payload is not trusted, and nothing in memory is needed for correctness.
"""
