"""OpenLineage integration: the inputs and outputs of OSAI jobs as OpenLineage datasets.

Allowed here: naming, facets, and lineage extraction. Imported only when OpenLineage needs it.
"""
