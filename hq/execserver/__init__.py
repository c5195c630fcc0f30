"""hq-exec-server: one a user and host. A tiny supervisor, and a worker that runs what the user signed and reports it."""
