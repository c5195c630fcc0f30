"""What the daemons share: loop, clock, bus, keys, configuration, log, run directory. Knows no daemon by name."""
