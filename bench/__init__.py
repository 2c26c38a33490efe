"""Measurements against the usual way, in the same run on the same machine: ratios hold where seconds do not."""
