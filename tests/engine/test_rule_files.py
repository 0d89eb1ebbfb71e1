from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_acl.engine.writing.rule_files import CHUNK, RuleFormat, closing, read_rules, write_rules
from fastapi_acl.shared.exceptions import InvalidImportError
from fastapi_acl.shared.policy import PolicyRule

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\n", exclude_categories=["Cs"]), max_size=20)
rules = st.builds(PolicyRule, st.sampled_from(["p", "g", "p2"]), st.lists(texts.filter(bool), min_size=1).map(tuple))


def read(text: str, form: RuleFormat) -> list[tuple[int, PolicyRule]]:
    return list(read_rules(io.StringIO(text, newline=""), form))


@pytest.mark.parametrize("form", ["csv", "json"])
@given(written=st.lists(st.lists(rules, max_size=4), max_size=4))
def test_what_is_written_is_read_back_verbatim(form: RuleFormat, written: list[list[PolicyRule]]) -> None:
    parts = [write_rules(packet, form, first=index == 0) for index, packet in enumerate([[], *written])]

    found = read("".join(parts) + closing(form), form)

    assert [rule for _, rule in found] == [rule for packet in written for rule in packet]


def test_an_exported_json_is_json() -> None:
    text = (
        write_rules([], "json")
        + write_rules([PolicyRule("p", ("a", "é"))] * 2, "json", first=True)[1:]
        + closing("json")
    )

    assert json.loads(text) == [{"ptype": "p", "values": ["a", "é"]}] * 2


def test_the_csv_of_casbin_is_read_with_its_comments_its_spaces_and_its_quotes() -> None:
    text = '# rôles\n\n  p ,  alice , "a, b", read\ng, alice, admin\n"p","x ","y""z"\n'

    assert read(text, "csv") == [
        (3, PolicyRule("p", ("alice", "a, b", "read"))),
        (4, PolicyRule("g", ("alice", "admin"))),
        (5, PolicyRule("p", ("x ", 'y"z'))),
    ]


@pytest.mark.parametrize(
    "text",
    [
        '[{"ptype":"p","values":["a"]},{"ptype":"g","values":["b","c"]}]',
        '{"ptype":"p","values":["a"]}\n{"ptype":"g","values":["b","c"]}\n',
        ' [ \n {"ptype": "p",\n "values": ["a"]} \n , {"ptype":"g","values":["b","c"]}\n]\n\n',
    ],
)
def test_json_is_a_list_or_one_object_a_line(text: str) -> None:
    assert [rule for _, rule in read(text, "json")] == [PolicyRule("p", ("a",)), PolicyRule("g", ("b", "c"))]


def test_an_object_cut_by_the_reading_is_whole() -> None:
    many = [PolicyRule("p", (f"role:{number}", "x" * 200)) for number in range(2 * CHUNK // 200)]

    found = read(write_rules(many, "json") + closing("json"), "json")

    assert [rule for _, rule in found] == many
    assert [line for line, _ in found[:2]] == [2, 3]


@pytest.mark.parametrize(
    ("form", "text", "line"),
    [
        ("csv", 'p, a\np, "b\n', 2),
        ("csv", 'p, a\np, "b"c\n', 2),
        ("json", '[\n{"ptype":"p","values":["a"]},\n{"ptype":"p" "values":[]}\n]', 3),
        ("json", '[\n{"ptype":"p","values":["a"]}', 2),
        ("json", '[{"ptype":"p","values":["a"]}]\nx', 2),
        ("json", '{"ptype":"p"}', 1),
        ("json", '{"ptype":"p","values":["a",1]}', 1),
        ("json", '{"ptype":null,"values":["a"]}', 1),
        ("json", '["p","a"]', 1),
        ("json", "3", 1),
        ("json", "[" * 200_000, 1),
        ("json", '{"ptype":"p","values":["' + "x" * 300_000 + "\n", 1),
    ],
)
def test_a_line_that_cannot_be_read_is_named(form: Any, text: str, line: int) -> None:
    with pytest.raises(InvalidImportError) as refused:
        read(text, form)

    assert refused.value.evidence["line"] == line
    assert f"Ligne {line} " in refused.value.detail


def test_bytes_that_are_not_utf8_are_named(tmp_path: Any) -> None:
    for form in ("csv", "json"):
        path = tmp_path / f"r.{form}"
        path.write_bytes(b'["p"' if form == "json" else b"p, a\n" + b"p, \xff\n")
        path.write_bytes(path.read_bytes() + b"\xff")
        with path.open(encoding="utf-8", newline="") as file, pytest.raises(InvalidImportError, match="Ligne"):
            list(read_rules(file, form))
