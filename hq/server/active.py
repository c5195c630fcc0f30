"""Being the active hq-server: puts the parts together and runs the loop. The only place that knows all parts."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import NamedTuple

from hq import VERSION
from hq.core.seat import Seat
from hq.db.seat import SeatRows
from hq.db.store import Store
from hq.db.writer import Writer
from hq.errors import InputError
from hq.kernel.clock import Clock
from hq.kernel.config import ServerConfig
from hq.kernel.detach import Starting
from hq.kernel.log import Log
from hq.kernel.loop import Loop, ThreadBackground
from hq.kernel.places import ClientConfig
from hq.kernel.zmqbus import ZmqServer
from hq.server.configuration import write_server_address
from hq.server.daemon import Server
from hq.server.enrolsocket import EnrolSocket
from hq.server.notify import notify
from hq.server.seat import Keeper, Standing

WORKERS = 8


class Place(NamedTuple):
    """Where this hq-server is, and what it is: its files and keys. `port` 0: any free one."""

    etc: str
    config: ServerConfig
    client: ClientConfig
    port: int
    public: str
    secret: str

    def listen(self) -> ZmqServer:
        """Take the port. Raises UnavailableError."""
        return ZmqServer(f"tcp://{self.config.bind}:{self.port}", self.public, self.secret)


class Taken(NamedTuple):
    """The seat was taken: under this epoch, by a question that was sent at this moment (CLOCK_BOOTTIME)."""

    epoch: int
    asked: float


def be_active(place: Place, rows: SeatRows, store: Store, log: Log, clock: Clock, starting: Starting, taken: Taken) -> Server:
    """Be the active one until it is told to end, or another one is. Returns the server as it was at its end."""
    loops: list[Loop] = []

    def wake() -> None:
        for each in loops:
            each.wake()

    config, system = place.config, log.category("system")
    with ExitStack() as stack:
        standing = Standing()
        if rows.can_move:
            seat = Seat(config.failover, taken.asked)
            keeper = Keeper(rows, taken.epoch, seat, clock, wake)
            keeper.start()  # before all that takes long
            stack.callback(keeper.close)
            standing = Standing(seat, keeper)
        port = place.listen()
        stack.callback(port.close)
        enrol = EnrolSocket(_socket_place(place.client.enrol_socket))
        stack.callback(enrol.close)
        if len(place.client.servers) == 1:
            address = f"{place.client.server.rpartition(':')[0]}:{port.port}"
            if write_server_address(place.etc, address):
                system.warning("client.yaml says %s now: users need the new file", address)
        writer = Writer(Store(store.engine, is_writer=True), wake, taken.epoch)
        stack.callback(lambda: writer.close(1.0 if writer.trouble else 10.0))
        background = ThreadBackground(WORKERS)
        server = Server(instance=config.instance, etc=place.etc, config=config, port=port, store=store, writer=writer, background=background,
                        log=log, now=clock.now(), epoch=taken.epoch, enrol=enrol, standing=standing)  # fmt: skip
        loop = Loop(server, clock, [port], background)
        stack.callback(loop.close)
        loops.append(loop)
        stack.callback(loops.clear)
        loop.watch(enrol)
        system.info("hq-server %s of %s listens at port %d, process %d, epoch %d", VERSION, config.instance, port.port, os.getpid(), taken.epoch)
        if sys.stderr.isatty():
            sys.stderr.write(f"hq-server: {config.instance} listens at {config.bind}:{port.port}\n")

        def announce() -> None:
            notify(f"READY=1\nMAINPID={os.getpid()}")
            starting.up()

        # in the first tick: only then signals are taken by the loop, and whoever waits for us may send one at once
        server.when_settled(None, announce)
        loop.run()
        if not standing.is_lost:
            notify("STOPPING=1")
        system.info("hq-server stops%s", f": {server.failure}" if server.failure else "")
        return server


def _socket_place(path: str) -> str:
    """The path of the enrolment socket, its directory made, and open to pass through: who speaks is asked of the kernel."""
    directory = os.path.dirname(path)
    try:
        if not os.path.isdir(directory):
            os.makedirs(directory, mode=0o711)
    except OSError as error:
        raise InputError(f"the directory cannot be made: {error.strerror}", file=directory) from None
    return path
