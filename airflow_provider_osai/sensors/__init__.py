"""Sensors that wait for jobs submitted by another task, another Dag, or a user.

Allowed here: sensors. Not allowed: submitting or cancelling jobs.
"""
