"""hq: a cluster scheduler for people who are not administrators."""

VERSION = "0.1.0"
