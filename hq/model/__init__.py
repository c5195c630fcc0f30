"""Values that every part of hq speaks in: ids, states, requests, jobs, hosts, users, changes.

Plain frozen dataclasses and functions over them. Imports only the standard library and `hq.errors`.
"""
