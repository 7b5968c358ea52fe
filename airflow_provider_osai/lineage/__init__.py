"""What OSAI's jobs read and made, in OpenLineage's words.

May live here: names, facets, and what a job means for lineage. Imported only when OpenLineage asks.
"""
