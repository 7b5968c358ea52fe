"""Airflow provider for OSAI (ONESTEP AI): datasets, training, conversion and prediction as Dag steps.

May live here: the provider's entry point and its command line; everything else has a folder of its own.
"""
