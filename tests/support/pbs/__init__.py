"""A stand-in for Torque and OpenPBS: the commands that hq calls, a queue in a file, and a server that really runs the jobs."""
