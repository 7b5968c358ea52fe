"""What waits for jobs that another task, Dag or person submitted.

May live here: sensors. May not: submitting or cancelling anything.
"""
