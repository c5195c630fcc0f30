"""backends.yaml: the table of options, the sample, and what is said about mistakes."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from hq.errors import InputError, SecurityError
from hq.kernel.backends import BACKEND_OPTIONS, parse_backends, read_backends, sample_backends
from hq.model.batch import BatchSettings


def parse(text: str) -> dict[str, BatchSettings]:
    return parse_backends(text, "backends.yaml")


def test_every_setting_is_an_option() -> None:
    assert {each.name for each in dataclasses.fields(BatchSettings)} == {option.name for option in BACKEND_OPTIONS}
    assert all(option.doc.endswith(".") or option.doc.endswith("}.") for option in BACKEND_OPTIONS)


def test_the_sample_uncommented_says_the_defaults() -> None:
    lines = [line.removeprefix("#") for line in sample_backends().splitlines() if line.startswith(("#centre", "#  ")) and not line.startswith("#  #")]
    assert parse("\n".join(lines)) == {"centre": BatchSettings()}
    assert parse(sample_backends()) == {} == parse("")


def test_values_are_read() -> None:
    text = (
        "centre:\n  partition: batch\n  extra: [--constraint=new, --exclusive]\n  environment: {SLURM_CONF: /etc/x.conf}\n  max_time: 2-00:00:00\n"
        "  max_memory: 64G\n  poll_interval: 0.5\n  retry_delays: [1, 1m]\n  resources: {licence: '--licenses=x:{count}'}\nother:\n"
    )
    got = parse(text)
    centre = got["centre"]
    assert (centre.partition, centre.extra, centre.environment) == ("batch", ("--constraint=new", "--exclusive"), {"SLURM_CONF": "/etc/x.conf"})
    assert (centre.max_time, centre.max_memory, centre.poll_interval, centre.retry_delays) == (172800, 64 << 30, 0.5, (1, 60))
    assert got["other"] == BatchSettings()


@pytest.mark.parametrize(("line", "what"), [
    ("partion: x", "did you mean 'partition'"), ("max_pending: many", "max_pending: 'many' is not a number"), ("extra: word", "list of words"),
    ("poll_interval: -1", "poll_interval"), ("dialect: lsf", "auto, torque, openpbs"), ("environment: x", "pairs"), ("retry_delays: []", "list of times"),
    ("max_memory: big", "size"), ("partition: [a]", "one word"),
])  # fmt: skip
def test_a_mistake_is_named_with_its_line(line: str, what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        parse(f"centre:\n  account: a\n  {line}\n")
    assert (caught.value.file, caught.value.line) == ("backends.yaml", 3)


@pytest.mark.parametrize("text", ["- a", "word", "a: 1", "a: {b: 'open}", "a:\n  qos: x\na:\n  qos: y\n", "a:\n  qos: x\n  qos: y\n"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse(text)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    assert read_backends(str(tmp_path)) == {}
    path = tmp_path / "backends.yaml"
    path.write_text("centre:\n")
    os.chmod(path, 0o666)
    with pytest.raises(SecurityError):
        read_backends(str(tmp_path))
