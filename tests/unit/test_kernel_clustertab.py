"""cluster.tab: what is read, and what is refused with file, line and column."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hq.errors import InputError
from hq.kernel.clustertab import COLUMNS, parse_cluster_tab
from hq.model.host import HostSpec

HEADER = "\t".join(COLUMNS)
ROW = "node1\tnode1.site\t8\t6\tbig box\tFalse\t12345\tTrue"


def parse(*lines: str) -> tuple[HostSpec, ...]:
    return parse_cluster_tab("\n".join(lines) + "\n", "cluster.tab")


def test_a_table_of_old_is_read() -> None:
    assert parse(HEADER, ROW) == (HostSpec(name="node1", address="node1.site", total=8, slots=6, info="big box"),)
    assert parse("#" + HEADER, ROW) == parse(HEADER, "# a remark", "", ROW, "   ") == parse(HEADER.replace("\t", " \t"), ROW)


def test_optional_columns_and_empty_cells() -> None:
    got = parse(HEADER + "\ttransport\tbackend\tqueue\tresources\tmemory", ROW + "\topenssh\tslurm\tlong\tgpu=2,licence=5\t64G", "n2\t\t4\t0\t\t\t\tno\t\t\t\t\t", "n3\tx\t1\t1")
    assert (got[0].transport, got[0].backend, got[0].queue, got[0].resources, got[0].memory) == ("openssh", "slurm", "long", {"gpu": 2, "licence": 5}, 64 << 30)
    assert got[1] == HostSpec(name="n2", address="n2", total=4, slots=0, is_active=False)
    assert got[2] == HostSpec(name="n3", address="x", total=1, slots=1)


def test_columns_in_any_order_and_spaces_without_tabs() -> None:
    got = parse("max_number_occupied_slots total_number_slots   short_name additional_info transport", "2   4 node1 -   local")
    assert got == (HostSpec(name="node1", address="node1", total=4, slots=2, transport="local"),)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("YES", True), ("1", True), ("false", False), ("No", False), ("0", False), ("", True)])
def test_truth_is_read_strictly(text: str, value: bool) -> None:
    assert parse(HEADER, ROW.replace("True", text))[0].is_active is value


@pytest.mark.parametrize(
    ("old", "new", "column"),
    [("True", "maybe", "active"), ("False", "2", "allow_info_server"), ("12345", "x", "info_server_port"), ("\t8\t", "\t5\t", "max_number_occupied_slots"),
     ("\t8\t", "\t0\t", "total_number_slots"), ("\t8\t", "\t-8\t", "total_number_slots"), ("\t8\t", "\t8.0\t", "total_number_slots"),
     ("\t8\t", "\t99999999999999999999\t", "total_number_slots"), ("\t8\t", "\t٣\t", "total_number_slots"), ("\t6\t", "\t\t", "max_number_occupied_slots"),
     ("node1\tnode1.site", "no/de\tx", "short_name"), ("node1\tnode1.site", "\tx", "short_name"), ("node1.site", "-oProxyCommand=x", "full_name"),
     ("node1.site", "a b", "full_name"), ("node1\tnode1.site", "-x\tx", "short_name"), ("node1\tnode1.site", "..\tx", "short_name")],
)  # fmt: skip
def test_a_bad_cell_is_named(old: str, new: str, column: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(HEADER, "# remark", ROW.replace(old, new, 1))
    assert (caught.value.file, caught.value.line, caught.value.column) == ("cluster.tab", 3, column)


@pytest.mark.parametrize(("column", "cell"), [("transport", "telnet"), ("backend", "a b"), ("queue", "9"), ("resources", "gpu"), ("resources", "gpu=1,gpu=2"), ("resources", "gpu=-1"), ("memory", "much")])
def test_a_bad_optional_cell_is_named(column: str, cell: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(f"{HEADER}\t{column}", f"{ROW}\t{cell}")
    assert (caught.value.line, caught.value.column) == (2, column)


@pytest.mark.parametrize(
    ("lines", "what"),
    [((HEADER, ROW, ROW), "line 2"), ((HEADER + "\tnickname", ROW), "no column 'nickname'"), ((HEADER + "\ttransprt", ROW), "did you mean 'transport'"),
     ((HEADER + "\tactive", ROW), "twice"), (("short_name\ttotal_number_slots", "a\t1"), "max_number_occupied_slots"), ((), "header"), (("# only",), "header"),
     ((HEADER, ROW + "\tmore"), "8 columns, this line 9"), ((HEADER, "node1 node1 8 8 x no 0 yes"), "by tabs"), ((HEADER.replace("\t", " "), "a b"), "8 columns")],
)  # fmt: skip
def test_a_bad_table_is_refused(lines: tuple[str, ...], what: str) -> None:
    with pytest.raises(InputError, match=what):
        parse(*lines)


@given(st.text(max_size=300))
def test_no_text_does_more_than_raise_an_input_error(text: str) -> None:
    for head in ("", HEADER + "\n", HEADER.replace("\t", " ") + "\n"):
        try:
            parse_cluster_tab(head + text, "cluster.tab")
        except InputError:
            pass
