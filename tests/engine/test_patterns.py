"""Les motifs se comparent comme Casbin les compare, et jamais en un temps qui s'emballe."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from casbin import util

from fastapi_acl.engine.kernel import key_match as patterns
from fastapi_acl.engine.kernel.key_match import PatternGroups
from tests.support.steps import steps

STOCK: dict[str, Callable[[str, str], bool]] = {
    "keyMatch": util.key_match,
    "keyMatch2": util.key_match2,
    "keyMatch3": util.key_match3,
    "keyMatch4": util.key_match4,
    "keyMatch5": util.key_match5,
    "globMatch": util.glob_match,
}
CHARACTERS = [*"aab//**:{}?.[]+\\\né!-,()|^$~@", "/*", "/:x", "{x}", "{y}", "**", "/**", ".*"]
PIECES = ["/a", "a", "/", "b", "/:x", "/{x}", "/*", "*"]
FILLED = {"*": "a", ":x": "b", "{x}": "a", "{y}": "b"}


def some_pattern(draw: random.Random) -> str:
    return "".join(draw.choice(CHARACTERS if draw.random() < 0.6 else PIECES) for _ in range(draw.randrange(8)))


def some_value(draw: random.Random, pattern: str) -> str:
    filled = pattern
    for hole in draw.sample(list(FILLED), k=2):
        filled = filled.replace(hole, FILLED[hole])
    kept = "".join(character for character in draw.choice([pattern, filled, ""]) if draw.random() < 0.93)
    return kept + "".join(draw.choice("ab/.?\né*:-") for _ in range(draw.randrange(3)))


@pytest.mark.parametrize("function", STOCK)
def test_a_pattern_that_is_read_is_compared_as_casbin_compares_it(function: str) -> None:
    draw, read = random.Random(7), 0
    for _ in range(2_500):
        pattern = some_pattern(draw)
        matches = patterns.compile_pattern(function, pattern)
        if matches is None:
            continue
        read += 1
        prefix, is_literal = patterns.literal_prefix(function, pattern), patterns.is_literal(function, pattern)
        suffix = patterns.literal_suffix(function, pattern)
        for value in (some_value(draw, pattern) for _ in range(8)):
            expected, text = STOCK[function](value, pattern), patterns.trim(function, value)
            assert matches(value) == expected, (pattern, value)
            assert not expected or text.startswith(prefix), (pattern, value, prefix)
            ends = [one.endswith(suffix) for one in patterns.probes(function, text)]
            assert not expected or any(ends), (pattern, value, suffix)
            assert not is_literal or (pattern in patterns.probes(function, text)) == expected, (pattern, value)
    assert read > 500


@pytest.mark.parametrize("function", STOCK)
def test_the_groups_find_what_a_plain_loop_would_find(function: str) -> None:
    draw, groups, held = random.Random(11), PatternGroups(function), list[str]()
    for _ in range(1_500):
        pattern = some_pattern(draw)
        if draw.random() < 0.4 and held:
            groups.discard(held.pop(draw.randrange(len(held))))
        elif patterns.compile_pattern(function, pattern) is not None:
            groups.add(pattern)
            held.append(pattern)
        if draw.random() < 0.2:
            value = some_value(draw, draw.choice([*held, ""]))
            expected = {known for known in held if patterns.compile_pattern(function, known)(value)}  # type: ignore[misc]
            found = groups.matching(value)
            assert sorted(found) == sorted(expected)
    while held:
        groups.discard(held.pop())
    assert len(groups) == 0
    assert groups._groups == {}


def test_a_pattern_that_casbin_could_never_finish_is_refused_by_the_groups() -> None:
    with pytest.raises(ValueError, match="linéaire"):
        PatternGroups("keyMatch2").add("^(a+)+$")


HOSTILE = [
    ("keyMatch5", "/*" * 60),
    ("keyMatch2", "/*" * 60 + "/x"),
    ("keyMatch3", "/a*a*a*a*b"),
    ("keyMatch2", "a*" * 100 + "b"),
    ("keyMatch4", "/{a}{b}" * 20),
    ("keyMatch4", "/{a}{a}" * 20),
    ("keyMatch2", "^(a+)+$"),
    ("keyMatch2", "(a|a)*b"),
    ("keyMatch2", "(?=a)a"),
    ("keyMatch2", "a{1,200}b"),
    ("keyMatch2", "[a-z]*[a-z]*x"),
    ("keyMatch2", ":a:b" * 30),
    ("keyMatch3", "{a}x" * 40 + "y"),
    ("keyMatch2", "/*a" * 60),
    ("keyMatch2", ".*" * 80 + "x"),
    ("keyMatch2", "a?" * 120 + "a" * 120),
    ("keyMatch2", ".*.?" * 40 + "x"),
    ("keyMatch2", ".+.+" * 40 + "x"),
    ("keyMatch2", ":x/" * 60),
    ("keyMatch5", "{x}/" * 60 + "!"),
    ("globMatch", "**/**/**"),
    ("globMatch", "*a*a*a*b"),
    ("globMatch", "/*/*/*/**"),
    ("globMatch", "**/a*/b*/c*"),
    ("globMatch", "{a,aa}" * 12),
    ("globMatch", "[a-z]*" * 20),
    ("globMatch", "/a*" * 60),
    ("globMatch", "**"),
    ("globMatch", "/**"),
    ("globMatch", "**/x"),
    *[
        (function, "/*" * count + "/x")
        for function in ("keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5")
        for count in (3, 9, 30)
    ],
    *[
        (function, "a*" * count + "$")
        for function in ("keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5")
        for count in (5, 50)
    ],
]
LONG = ["/" * 8192, "a" * 8192, "/a" * 4096, "a/" * 4095 + "x", "/" * 8191 + "!", "ax" * 4096, "a/b/c/" * 1365]


@pytest.mark.parametrize(("function", "pattern"), HOSTILE)
def test_no_pattern_runs_away_on_a_long_value(function: str, pattern: str) -> None:
    matches = patterns.compile_pattern(function, pattern)

    for value in LONG if matches else []:
        started = time.process_time()
        matches(value)  # type: ignore[misc]
        assert time.process_time() - started < 0.5  # 10 ms visées ; un emballement se compte en heures


PIECES_OF_PATHS = ["/a", "/", "b", "/{x}", "{x}", "-", "/*", "{y}c", "/*/", "aa", ".*"]


@pytest.mark.parametrize("function", ["keyMatch3", "keyMatch4", "keyMatch5"])
def test_a_path_is_cut_into_segments_as_the_expression_would_read_it(function: str) -> None:
    draw, compared = random.Random(5), 0
    for _ in range(2_000):
        pattern = "".join(draw.choice(PIECES_OF_PATHS) for _ in range(draw.randrange(1, 8)))
        matches = patterns.compile_pattern(function, pattern)
        for _ in range(6 if matches else 0):
            filled = pattern.replace("{x}", draw.choice(["a", "b-", "aa", "/"])).replace("{y}", draw.choice("cb\n"))
            filled = filled.replace("*", draw.choice(["a/b", "", "aa", "\n"]))
            value = filled + draw.choice(["", "", "\n", "/", "\n\n"])
            compared += 1
            assert matches(value) == STOCK[function](value, pattern), (pattern, value)  # type: ignore[misc]
    assert compared > 1_000


@pytest.mark.parametrize(
    ("function", "made"),
    [
        ("keyMatch2", "/:a/x{}"),
        ("keyMatch2", "/*/x{}"),
        ("keyMatch2", "/:a/*/x{}"),
        ("keyMatch3", "/{{a}}-x{}"),
        ("keyMatch4", "/{{a}}/{{a}}/x{}"),
        ("keyMatch5", "/{{a}}/*/x{}"),
        ("globMatch", "/*/x{}"),
        ("globMatch", "**/x{}"),
    ],
)
@pytest.mark.parametrize("value", LONG)
def test_a_long_value_is_compared_only_to_the_patterns_whose_end_it_has(function: str, made: str, value: str) -> None:
    few, many = PatternGroups(function), PatternGroups(function)
    for groups, count in ((few, 10), (many, 90)):
        for place in range(10, 10 + count):
            groups.add(made.format(place))

    assert steps(many.matching, value) == steps(few.matching, value)


@pytest.mark.parametrize("pattern", ["/*/x/*", "/:a/b/:c", "/*/a/*/b/*/c", "/api/:id/*/edit"])
def test_the_steps_of_a_comparison_do_not_follow_the_length_of_the_value(pattern: str) -> None:
    matches = patterns.compile_pattern("keyMatch2", pattern)
    assert matches is not None

    assert max(steps(matches, value) for value in LONG) <= 2 * max(steps(matches, value[:40]) for value in LONG) + 50
