"""What Dags say to OSAI: one file a resource, each operator a request and its docstring.

May live here: operators. May not: HTTP, waiting loops, anything that another operator does too (that is in base).
"""
