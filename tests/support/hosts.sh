#!/bin/bash
# The first process of a test host: already in its network, UTS, PID and mount namespaces. hosts.sh NAME HOSTS_FILE SSHD_CONFIG
set -eu
hostname "$1"
mount --bind "$2" /etc/hosts
exec /usr/sbin/sshd -D -e -f "$3"
