"""hq-server and its user-servers: hello, the one lease a user, silence, versions, and the order at the end."""

from __future__ import annotations

import pytest

from hq.model.selection import Selection
from hq.protocol.admin import AdminAnswer, AdminRun
from hq.protocol.base import PROTOCOL
from hq.protocol.jobs import JobQuery, JobRows, JobSubmit, JobSubmitted
from hq.protocol.peers import HostsListed, PeerAsk, PeerBye, PeerFacts, PeerHeartbeat, PeerRefused, PeerWelcome
from tests.support.serverroom import INSTANCE, InlineWriter, Room, UserServer


def test_welcome(room: Room) -> None:
    welcome = UserServer(room, "alice").hello()
    assert (welcome.instance, welcome.user, welcome.epoch) == (INSTANCE, "alice", 1)
    assert [host.name for host in welcome.hosts] == ["one", "two"] and welcome.heartbeat == 5.0


def test_a_second_user_server_is_refused_with_the_address_of_the_first(room: Room) -> None:
    first = room.user("alice")
    second = UserServer(room, "alice", boot="boot-2")
    refused = second.ask(second.hello_message(), PeerRefused)
    assert refused.address == "tcp://login:1boot-1" and "login" in refused.reason
    assert first.ask(JobQuery(selection=Selection()), JobRows).rows == ()
    # with the same key, but without a session, it is not heard
    assert isinstance(second.answers(JobQuery(selection=Selection()))[0], PeerBye)


def test_the_same_process_may_come_by_a_new_connection(room: Room) -> None:
    room.user("alice")
    again = UserServer(room, "alice")
    again.hello()
    assert again.submit("true") and again.orders()


def test_a_silent_one_makes_room(room: Room) -> None:
    room.user("alice")
    second = UserServer(room, "alice", boot="boot-2")
    room.tick(10.0)
    assert second.ask(second.hello_message(), PeerRefused)
    room.tick(6.0)
    second.hello()
    assert second.submit("true") and second.orders()


def test_a_heartbeat_keeps_the_lease(room: Room) -> None:
    alice = room.user("alice")
    for _ in range(10):
        alice.send(PeerHeartbeat())
        room.tick(4.0)
    assert alice.ask(JobQuery(selection=Selection()), JobRows).rows == ()
    assert len(alice.all_of(PeerHeartbeat)) >= 5  # both ways


def test_a_goodbye_makes_room_at_once_and_jobs_wait(room: Room) -> None:
    first = room.user("alice")
    first.send(PeerBye(reason="idle"))
    room.tick()
    second = UserServer(room, "alice", boot="boot-2")
    second.hello()
    assert second.submit("true")


@pytest.mark.parametrize(("number", "is_welcome"), [(PROTOCOL, True), (PROTOCOL + 1, True), (PROTOCOL - 1, True), (PROTOCOL + 2, False)])
def test_adjacent_protocols_talk(room: Room, number: int, is_welcome: bool) -> None:
    alice = UserServer(room, "alice")
    answer = alice.answers(alice.hello_message(protocol=number, version="9.9"))[0]
    assert isinstance(answer, PeerWelcome if is_welcome else PeerRefused)
    if isinstance(answer, PeerRefused):
        assert "9.9" in answer.reason and "install" in answer.reason


def test_new_hosts_are_announced_to_all(room: Room) -> None:
    alice, bob = room.user("alice"), room.user("bob")
    room.admin("addhost", "three:1:local")
    for peer in (alice, bob):
        assert [host.name for host in peer.all_of(HostsListed)[-1].hosts] == ["one", "two", "three"]


def test_a_bad_file_changes_nothing(room: Room) -> None:
    (room.etc / "cluster.tab").write_text("short_name total_number_slots max_number_occupied_slots\none many 2\n")
    words = room.client("carol-admin").refused(AdminRun(words=("reload",)))
    assert "cluster.tab" in words and "line 2" in words
    room.server.reload(room.clock.now())
    room.tick()
    assert [cells[0] for cells in room.admin("lscluster").rows] == ["one", "two"]


def test_a_users_facts_tell_nothing_of_the_owners_directories(room: Room) -> None:
    facts = room.user("alice").ask(PeerAsk(what="info"), PeerFacts).facts
    assert facts["instance"] == INSTANCE and str(room.directory) not in repr(facts)


def test_shutdown_says_goodbye_and_ends(room: Room) -> None:
    alice = room.user("alice")
    assert "stops" in room.admin("shutdown").text
    assert alice.all_of(PeerBye)
    room.tick(1.0)
    assert room.server.is_done


def test_a_stop_waits_for_the_commit_that_is_under_way_but_not_for_ever(room: Room) -> None:
    alice = room.user("alice")
    assert isinstance(room.writer, InlineWriter)
    room.writer.is_held = True
    alice.send(JobSubmit(items=(alice.item("true"),)))
    room.tick()
    room.server.stop(room.clock.now())
    room.tick(1.0)
    assert not room.server.is_done
    room.writer.let_go()
    room.tick()
    assert room.server.is_done and alice.all_of(JobSubmitted)


def test_shutdown_does_not_wait_for_ever_for_its_own_record(room: Room) -> None:
    """With the database away, or hanging in the middle of a commit."""
    assert isinstance(room.writer, InlineWriter)
    room.writer.is_held = True
    admin = room.client("carol-admin")
    assert not admin.answers(AdminRun(words=("shutdown",)))
    room.tick(3.0)
    assert not room.server.is_done and not admin.all_of(AdminAnswer)
    room.writer.trouble = "the state database is away"
    room.tick(1.5)
    (answer,) = admin.all_of(AdminAnswer)
    assert "hq-server stops" in answer.text and "state database does not answer" in answer.text
    room.tick(2.5)
    assert room.server.is_done
