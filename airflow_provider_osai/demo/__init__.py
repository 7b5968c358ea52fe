"""The demo that `make demo` runs: a complete Airflow with a temporary home, the sandbox, and images of digits.

This package starts Airflow and controls it from outside, over its REST API. It has nothing that a user's Dag needs.
"""
