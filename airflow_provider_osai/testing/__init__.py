"""For tests of users' own Dags.

May live here: pytest's plugin. Nothing that a Dag imports.
"""
