"""The commands of users: `hq-submit` and `hq-client`. They talk to the user's own user-server and to nothing else.

What a simple submission needs is standard library only, because importing is what a command spends its time on; whatever is
heavier (tables, progress bars, ZeroMQ) is imported where it is used. Neither the database nor a daemon is known here.
"""
