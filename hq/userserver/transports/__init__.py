"""Ways to reach a host as the user: a child process, paramiko, the system's ssh. `base` says what all of them are."""
