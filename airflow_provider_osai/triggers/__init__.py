"""What waits in the triggerer while no worker is held.

May live here: triggers. May not: anything that blocks, cancels in cleanup, or needs more than a connection's id.
"""
