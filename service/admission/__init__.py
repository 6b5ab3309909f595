"""Admission: what an API server is told about a new GPU pod. Its own process, which judges on a snapshot of the last
cycle and lets everything through that it does not know.
"""
