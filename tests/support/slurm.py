"""A real Slurm on loopback: munged, slurmctld and several slurmd of its own on one machine, in a folder that goes with it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from tests.support.mariadb import MariaDB
from tests.support.ports import free_ports
from tests.support.wait import until

#: Seconds that a daemon may take to come or to go: slurmdbd makes some forty tables first.
PATIENCE = 120.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONF = """\
ClusterName=hqtest
SlurmctldHost={host}({address})
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={base}/munge.socket
CommunicationParameters={listening}
MpiDefault=none
GresTypes=gpu
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=2,batch_sched_delay=0,sched_interval=3,bf_interval=1,bf_continue,default_queue_depth=1000
ReturnToService=2
KillWait=2
MinJobAge=300
SlurmctldTimeout=30
SlurmdTimeout={slurmd_timeout}
MessageTimeout=10
MaxArraySize=2001
SlurmdParameters=config_overrides
{accounting}
StateSaveLocation={base}/state
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.%n.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/slurmd.%n.log
SlurmdSpoolDir={base}/spool.%n
MailProg=/bin/true
{more}
{nodes}
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 DefMemPerCPU=16 State=UP
PartitionName=urgent Nodes=ALL MaxTime=INFINITE DefaultTime=60 DefMemPerCPU=16 PriorityTier=10 State=UP
"""
_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
# the munge socket: AuthInfo does not count towards slurmdbd
AccountingStoragePass={base}/munge.socket
AccountingStorageEnforce=associations,limits,qos"""
_DBD = """\
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket
CommunicationParameters=NoInAddrAny
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
PidFile={base}/slurmdbd.pid
LogFile={base}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database.port}
StorageUser=root
StorageLoc={name}
"""


def missing_for_slurm(*more: str) -> str:
    """What is not here of a Slurm and `more` programs, empty if all is."""
    return ", ".join(name for name in ("munged", "slurmctld", "slurmd", "sbatch", *more) if shutil.which(name, path=_PATH) is None)


class SlurmCluster:
    """Nodes n1, n2 … with so many cores each. As root: jobs run as their submitter. A context manager.

    `database`: for slurmdbd, so that there is accounting: users need the association that `add_user` makes. `slurmd_timeout`: seconds
    until a node without its slurmd is down. `address`: where the controller listens. `more`: lines of slurm.conf.
    """

    def __init__(self, nodes: int = 2, cpus: int = 16, *, database: MariaDB | None = None, slurmd_timeout: int = 30, address: str = "127.0.0.1",
                 more: str = "") -> None:  # fmt: skip
        self.base = Path(tempfile.mkdtemp(prefix="hq-slurm-", dir="/var/tmp"))
        self.base.chmod(0o755)
        self.conf = self.base / "slurm.conf"
        self.names = [f"n{number}" for number in range(1, nodes + 1)]
        ports = free_ports(nodes + 2)
        spare = ports.pop()
        self._dbd_port = spare if database is not None else 0
        host = socket.gethostname().partition(".")[0]
        lines = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Boards=1 SocketsPerBoard=1 "
            f"CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory=8192 Gres=gpu:2 State=UNKNOWN"
            for name, port in zip(self.names, ports[1:], strict=True)
        ]
        # NoCtldInAddrAny means the address of the host's name, whatever is written behind it
        listening = "NoCtldInAddrAny,NoInAddrAny" if address == "127.0.0.1" else "NoInAddrAny"
        accounting = _ACCOUNTING.format(port=self._dbd_port, base=self.base) if database is not None else "AccountingStorageType=accounting_storage/none"
        self.conf.write_text(_CONF.format(host=host, port=ports[0], base=self.base, nodes="\n".join(lines), accounting=accounting,
                                          slurmd_timeout=slurmd_timeout, address=address, listening=listening, more=more))  # fmt: skip
        if database is not None:
            file = self.base / "slurmdbd.conf"
            file.write_text(_DBD.format(base=self.base, host=host, port=self._dbd_port, database=database, name=f"slurm_{secrets.token_hex(4)}"))
            file.chmod(0o600)
        # must be there beside slurm.conf, and not empty
        (self.base / "cgroup.conf").write_text("CgroupAutomount=no\n")
        (self.base / "gres.conf").write_text("Name=gpu File=/dev/null,/dev/zero\n")
        self._address = ""
        self.environment = {"PATH": _PATH, "SLURM_CONF": str(self.conf), "LC_ALL": "C"}

    def __enter__(self) -> SlurmCluster:
        try:
            self._address = lend_address()
            key = self.base / "munge.key"
            key.write_bytes(os.urandom(128))
            key.chmod(0o400)
            (self.base / "state").mkdir(mode=0o700)
            self._daemon("munged", "--force", "--num-threads=2", f"--key-file={key}", f"--socket={self.base}/munge.socket",
                         f"--pid-file={self.base}/munged.pid", f"--log-file={self.base}/munged.log", f"--seed-file={self.base}/munge.seed")  # fmt: skip
            if self._dbd_port:
                self._daemon("slurmdbd")
                until(self._is_dbd_up, PATIENCE, "slurmdbd to listen")
            self.start_controller()
            for name in self.names:
                self.start_node(name)
            until(lambda: self.run("sinfo", "-h", "-N", "-p", "batch", "-o", "%N %T").count(" idle") == len(self.names), PATIENCE, "nodes to be idle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("slurmctld", *(f"slurmd.{node}" for node in self.names), "slurmdbd", "munged"):
            self.stop(name, signal.SIGKILL)
        # a slurmstepd outlives its slurmd on purpose: those of this cluster, and their jobs
        until(lambda: not self._kill_steps(), PATIENCE, "end of the last steps")
        shutil.rmtree(self.base, ignore_errors=True)
        if self._address:
            subprocess.run(["ip", "address", "del", self._address, "dev", "lo"], check=False)

    def _kill_steps(self) -> int:
        """Kill what runs in this cluster's name; how many there were. A new one may be just being made."""
        found = 0
        for process in psutil.process_iter():
            mine: list[psutil.Process] = []
            with suppress(psutil.Error, OSError):
                # it writes its title over its environment, which psutil then cannot read
                environment = Path(f"/proc/{process.pid}/environ").read_bytes()
                if process.name() == "slurmstepd" and process.status() != psutil.STATUS_ZOMBIE and str(self.base).encode() in environment:
                    mine = [*process.children(recursive=True), process]
            found += len(mine)
            for each in mine:
                with suppress(psutil.Error):
                    each.send_signal(signal.SIGKILL)
        return found

    def start_controller(self) -> None:
        """Start slurmctld; returns when it answers."""
        self._daemon("slurmctld", "-f", str(self.conf))
        until(lambda: "is UP" in self.run("scontrol", "ping", check=False), PATIENCE, "slurmctld to answer")

    def start_node(self, name: str) -> None:
        """Start the slurmd of a node; returns when its pid is known."""
        file = self._pid_file(f"slurmd.{name}")
        file.unlink(missing_ok=True)
        self._daemon("slurmd", "-f", str(self.conf), "-N", name)
        until(lambda: file.exists() and file.read_text().strip(), PATIENCE, f"the pid of {name}")

    def kill_node(self, name: str) -> None:
        """kill -9 of a node's slurmd: its jobs live on, the controller hears no more of them."""
        self.stop(f"slurmd.{name}", signal.SIGKILL)

    def add_user(self, user: str, account: str) -> None:
        """Let a user submit to an account, where there is accounting."""
        for words in (("account", account), ("user", user, f"account={account}")):
            self.run("sacctmgr", "-i", "add", *words, check=False)

    def _is_dbd_up(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._dbd_port), 1):
            return True
        return False

    def _pid_file(self, name: str) -> Path:
        return self.base / f"{name}.pid"

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """End a daemon by the pid in its file, and wait for its end."""
        file = self._pid_file(name)
        try:
            process = psutil.Process(int(file.read_text()))
        except (OSError, ValueError, psutil.NoSuchProcess):
            return
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, PATIENCE, f"end of {name}")
        file.unlink(missing_ok=True)

    def run(self, *argv: str, check: bool = True) -> str:
        """A command of Slurm as root; what it printed."""
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0 or not check, (argv, done.stderr)
        return done.stdout

    def _daemon(self, *argv: str) -> None:
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, (argv, done.stderr)


def lend_address() -> str:
    """Give loopback an address outside 127/8 if this machine has none, for Slurm resolves no name otherwise (AI_ADDRCONFIG); the address, or nothing."""
    try:
        socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET, flags=socket.AI_ADDRCONFIG)
    except socket.gaierror:
        done = subprocess.run(["ip", "address", "add", "192.0.2.1/32", "dev", "lo"], check=False, capture_output=True)
        return "192.0.2.1/32" if done.returncode == 0 else ""
    return ""
