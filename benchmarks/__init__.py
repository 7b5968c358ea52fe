"""What waiting, importing and resuming cost, beside what a user would take instead.

May live here: measurements that anybody can repeat (``make bench``). May not: what only works with inner parts of the
provider; each measurement uses what users use.
"""
