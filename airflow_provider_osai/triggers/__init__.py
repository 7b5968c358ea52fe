"""Triggers, which run in the triggerer while no worker slot is held.

May live here: triggers. May not: anything that blocks, cancels in cleanup, or needs more than a connection's id.
"""
