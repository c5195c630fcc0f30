"""The texts of an instance's configuration files, commented: what `hq-admin init` writes, and the samples in etc/.

hq.yaml comes from the table of options in `hq.kernel.config`.
"""

from __future__ import annotations

from collections.abc import Sequence

from hq.kernel.backends import sample_backends
from hq.kernel.clustertab import COLUMNS, OPTIONAL_COLUMNS
from hq.kernel.config import sample_server_config
from hq.model.host import HostSpec


def cluster_tab(hosts: Sequence[HostSpec]) -> str:
    """A cluster.tab with these hosts."""
    header = (*COLUMNS, "transport")
    lines = [
        "# cluster.tab: the hosts of the cluster, one a line. Cells are separated by tabs. Read again by hq-admin reload.",
        "#",
        "# short_name                 the name in all listings; it must not change while jobs are there",
        "# full_name                  what ssh is told: a name or an address",
        "# total_number_slots         slots of the machine, by default its cores",
        "# max_number_occupied_slots  how many of them hq may occupy",
        "# additional_info            a remark",
        "# allow_info_server          as in hQ; kept so that its files can be read, without effect",
        "# info_server_port           likewise",
        "# active                     true or false: whether jobs are placed there when hq sees the host for the first time",
        "# and, if the header names them:",
        "# transport                  ssh (the default), openssh (the system's ssh command) or local (this machine, without ssh)",
        "# backend                    what runs the jobs there: process (if empty), or slurm or torque: the host stands for a batch system, see backends.yaml",
        "# queue                      the queue that the host belongs to",
        "# resources                  what else can be counted: gpu=2,licence=5",
        "# memory                     what all jobs there may have together: 64G",
        "\t".join(header),
    ]
    for host in hosts:
        lines.append(
            "\t".join((host.name, host.address, str(host.total), str(host.slots), host.info, "false", "0", "true" if host.is_active else "false", host.transport))
        )
    assert set(header) <= set(COLUMNS + OPTIONAL_COLUMNS)
    return "\n".join(lines) + "\n"


def users(rows: Sequence[tuple[str, str]]) -> str:
    """A file `users` with these names and roles."""
    return (
        "# users: who may use hq, one a line: the Unix name, a tab, and roles separated by commas.\n"
        "# user   submits jobs\n"
        "# admin  may use hq-admin as well\n"
        "# Read again by hq-admin reload.\n"
    ) + "".join(f"{name}\t{roles}\n" for name, roles in rows)


def client_yaml(instance: str, server: str, server_key: str, enrol_socket: str) -> str:
    """A client.yaml: everything that a command needs to find the instance."""
    return f"""\
# client.yaml: all that the commands need to reach this instance. Every user must be able to read it, nobody but its owner
# may write it. Copy it to ~/.config/hq or /etc/hq of other login machines. One name: value a line.

# Name of the instance.
instance: {instance}

# Where hq-server listens; with a standby on another machine both addresses, with a blank between: they are tried in turn.
server: {server}

# hq-server's public key. It is no secret, but commands trust who proves to own it.
server_key: '{server_key}'

# hq-server's Unix socket on its own machine, where a user registers his key by his uid.
enrol_socket: '{enrol_socket}'

# Machine on which the users' user-servers run; empty: wherever the user is.
#userserver:

# The command hq-exec-server on ordinary hosts; empty: the same path as here.
#exec_server:

# Whether jobs may run as root without --allow-root.
#allow_root: false
"""


def database_cfg(url: str) -> str:
    """An hq-db.cfg."""
    return f"""\
# hq-db.cfg: where the state database is. Mode 0600: it may hold a password, and only hq-server needs it.
#
# SQLite on a local disk:   url = sqlite:////srv/hq/var/state.db
# MariaDB or MySQL:         url = mysql+pymysql://hq:PASSWORD@dbhost:3306/hq
# or as in hQ:              database_dialect, database_host, database_port, database_name, database_username, database_password

[DATABASE]
url = {url}
"""


def samples() -> dict[str, str]:
    """The files of etc/ in the source tree, by name."""
    hosts = (
        HostSpec(name="node1", address="node1.example.org", total=16, slots=16, info="the big one"),
        HostSpec(name="node2", address="192.0.2.17", total=8, slots=6, is_active=False, transport="openssh"),
        HostSpec(name="here", address="localhost", total=4, slots=2, transport="local"),
    )
    return {
        "cluster.tab.sample": cluster_tab(hosts),
        "users.sample": users((("alice", "user,admin"), ("bob", "user"))),
        "backends.yaml.sample": sample_backends(),
        "hq.yaml.sample": sample_server_config(instance="site-0123abcd"),
        "client.yaml.sample": client_yaml("site-0123abcd", "tcp://login.example.org:10101", "0" * 40, "/srv/hq/var/run/enrol.sock"),
        "hq-db.cfg.sample": database_cfg("sqlite:////srv/hq/var/state.db"),
    }
