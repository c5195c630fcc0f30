"""hq-server: keeps users, hosts and jobs, schedules, and is the only writer of the state database. Runs nothing for anybody."""
