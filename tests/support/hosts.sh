#!/bin/bash
# The first process of a test host: already in its network, UTS, PID and mount namespaces. hosts.sh NAME HOSTS_FILE SSHD_CONFIG
set -eu
hostname "$1"
mount --bind "$2" /etc/hosts
# each power-on is a boot of its own
boot=$(mktemp)
cat /proc/sys/kernel/random/uuid > "$boot"
chmod 444 "$boot"
mount --bind "$boot" /proc/sys/kernel/random/boot_id
rm "$boot"
exec /usr/sbin/sshd -D -e -f "$3"
