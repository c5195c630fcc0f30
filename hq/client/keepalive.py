"""`hq-client keepalive`: asks hq-user-server's own command, which knows how it can be kept up over logouts on this machine."""

from __future__ import annotations

import subprocess

from hq.client.output import print_json
from hq.client.spawn import user_server_argv
from hq.errors import RefusedError, UnavailableError, UsageError
from hq.kernel.places import find_etc, read_client_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hq.client.call import Call

ORDERS = {"on": "--install-keepalive", "off": "--remove-keepalive", "status": "--keepalive-status"}

#: systemd and cron answer at once, or hang.
PATIENCE = 120.0


def keepalive(call: Call, words: list[str]) -> int:
    """on, off or status. Its own words are passed on."""
    what = words[0] if words else "on"
    if what not in ORDERS:
        raise UsageError(f"keepalive is on, off or status, not '{what}'")
    config = read_client_config(find_etc(call.values.get("etc")))
    argv = [word for word in user_server_argv(config.etc) if word != "-d"]
    try:
        done = subprocess.run([*argv, ORDERS[what]], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"hq-user-server {ORDERS[what]}: {error}") from None
    said = done.stdout.decode(errors="backslashreplace").strip()
    if done.returncode != 0:
        raise RefusedError(done.stderr.decode(errors="backslashreplace").strip() or said or f"exit code {done.returncode}, without a word")
    if call.is_json:
        print_json({"schema": "hq.keepalive.1", "text": said})
    else:
        print(said)
    return 0
