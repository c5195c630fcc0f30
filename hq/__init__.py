"""hq: a cluster scheduler for people who are not administrators."""

VERSION = "0.1.0"

#: The name that tools look for.
__version__ = VERSION
