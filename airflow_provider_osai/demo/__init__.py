"""The demo: a whole Airflow on a temporary home, handwritten digits as images, and the story that `make demo` tells.

May live here: what starts and drives Airflow from outside, over its REST API. May not: what a user's Dag needs.
"""
