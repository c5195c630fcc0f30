"""Jobs after others with real daemons: on one command line after the other, over a restart of hq-server, and in a jobs file."""

from __future__ import annotations

import os
import signal

from tests.support.site import Site


def test_a_chain_runs_in_its_order_and_a_broken_one_ends(site: Site) -> None:
    chain = f"chain-{site.instance}"
    first = site.submit("alice", f"{site.waits}; echo one >>{chain}")
    second = site.submit("alice", "--after", first, f"echo two >>{chain}")
    third = site.submit("alice", "--after", f"{first},{second}", f"echo three >>{chain}; exit 3")
    never = site.submit("alice", "--after", third, f"echo never >>{chain}")
    last = site.submit("alice", "--after-any", f"{never},{third}", f"cat {chain}; rm {chain}")
    assert f"It starts after job {second} has ended well" in site.client("alice", "why", third).ok().out
    assert site.row("alice", last)["reason"] == f"waits for jobs {never}, {third} to end"
    os.kill(site.server_pid(), signal.SIGKILL)
    site.start_server()
    site.let_go(first)
    assert site.wait_for("alice", last)["outcome"] == "ok"
    assert site.client("alice", "log", last).ok().out == "one\ntwo\nthree\n"
    row = site.row("alice", never)
    assert (row["outcome"], row["reason"]) == ("cancelled", f"it was to start after job {third} had ended well, and that ended: failed")
    late = site.run("alice", "hq-submit", "--after", third, "true")
    assert late.rc == 0 and "cancelled: it was to start after" in late.out + late.err
    refused = site.run("alice", "hq-submit", "--after", "4711", "true")
    assert refused.rc == 1 and "there is no job 4711 of yours" in refused.err
    assert site.run("alice", "hq-submit", "--after", "x", "true").rc == 2
