import dataclasses
import importlib
import inspect
import json
import pkgutil
import types
import typing
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmartifacts.errors import InvalidInput, InvalidManifest, InvalidReference, LlmartifactsError, NotFound, TooLarge
from llmartifacts.records import approval, audit, backend, canonical, lineage
from llmartifacts.records.checkpoint import Checkpoint
from llmartifacts.records.digest import Digest, digest_of
from llmartifacts.records.manifest import Component, Descriptor, Manifest
from llmartifacts.records.policy import Verdict
from llmartifacts.records.proof import ConsistencyProof, InclusionProof
from llmartifacts.records.reference import Reference
from llmartifacts.records.retention import Retention
from llmartifacts.records.rights import Role
from llmartifacts.records.version import Version
from llmartifacts.wire import bodies
from llmartifacts.wire.bodies import audit as audit_bodies
from llmartifacts.wire.bodies import moves
from llmartifacts.wire.bodies.base import Body, read_answer, read_body
from llmartifacts.wire.bodies.problems import Problem
from llmartifacts.wire.bodies.versions import CollectionsQuery, VersionsQuery


def every_body() -> list[type[Body]]:
    found = []
    for module in pkgutil.iter_modules(bodies.__path__):
        loaded = importlib.import_module(f"{bodies.__name__}.{module.name}")
        found += [
            c
            for _, c in inspect.getmembers(loaded, inspect.isclass)
            if issubclass(c, Body) and "RECORD" in vars(c) and c.__module__ == loaded.__name__
        ]
    return found


BODIES = every_body()
NAMED = {c.RECORD: c for c in BODIES}

# --- records of every class, made from their annotations

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)
lines = st.text("abc äöü-_/:日", max_size=20)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True).filter(lambda n: n.lower() != "sha256")
aliases = st.from_regex(r"[a-u][a-z0-9._-]{0,8}", fullmatch=True).filter(lambda a: a != "latest")
digests = st.binary(max_size=4).map(digest_of)
times = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)).map(
    lambda t: t.replace(tzinfo=UTC)
)
counts = st.integers(0, 2**53 - 1)
lengths = st.integers(0, 10**9).map(lambda seconds: timedelta(seconds=seconds))
references = st.one_of(
    st.builds(Reference, names, st.none() | names, alias=aliases, digest=st.none() | digests),
    st.builds(Reference, names, st.none() | names, number=st.integers(1, 999_999_999), digest=st.none() | digests),
    st.builds(Reference, names, st.none() | names),
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts | st.floats(-1e9, 1e9, width=32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, plain, max_size=4)
manifests = st.builds(
    lambda kind, config, paths, roles: Manifest.build(
        kind,
        config,
        [Descriptor(f"f{p}", digest_of(b"x"), p, "https://x" if p % 2 else None) for p in paths],
        [Component(f"r{r}", kind, digest_of(b"y")) for r in roles],
    ),
    names,
    objects,
    st.sets(st.integers(0, 99), max_size=3),
    st.sets(st.integers(0, 99), max_size=3),
)
hashes = st.binary(min_size=32, max_size=32)
problems = st.builds(
    lambda message, name, near, step: NotFound(message, name=name, near=near, next_step=step),
    lines.filter(bool),
    lines,
    st.tuples(names) | st.just(()),
    lines,
)

BY_FIELD = {
    "name": names,
    "project": names,
    "kind": names,
    "alias": aliases,
    "expect": st.none() | st.dictionaries(names, st.none() | st.just("v3"), max_size=2),
    "tags": st.dictionaries(names, lines, max_size=2),
    "git_commit": st.sampled_from(["", "a" * 40]),
    "run": st.sampled_from(["", "0123456789abcdef"]),
    "role": st.sampled_from(["", "index"]),
    "number": st.integers(1, 999_999_999),
    "old": st.none() | st.integers(1, 99),
    "new": st.none() | st.integers(1, 99),
    "message": lines,
    "reason": lines,
    "ticket": lines,
    "subject": names,
    "account": names,
    "pattern": st.just("prod*"),
    "patterns": st.just("*"),
    "digest": digests,
    "root": st.just("ab" * 32),
}
BY_CLASS = {
    ("Grant", "aliases"): st.just(("*", "!prod")),
    ("Grant", "role"): st.sampled_from(list(Role)),
    ("Protection", "role"): st.sampled_from(list(Role)),
    ("Account", "kind"): st.sampled_from(["user", "service", "team"]),
    ("Identity", "kind"): st.sampled_from(["user", "service"]),
    ("TokenInfo", "id"): st.just("0123456789"),
    ("Input", "relation"): st.sampled_from(["derived_from", "contains", "evaluated_with"]),
    ("Draft", "aliases"): st.lists(aliases, max_size=2).map(tuple),
    ("Serving", "digest"): st.none() | digests,
    ("Project", "name"): names,
    ("PromotionRequest", "targets"): None,
    ("TokenScope", "projects"): st.none() | st.just(("a", "b")),
    ("TokenScope", "roles"): st.none() | st.just((Role.READER,)),
    ("Checkpoint", "root"): hashes,
    ("Lineage", "direction"): st.sampled_from(["up", "down"]),
}
SPECIAL = {
    Reference: references,
    Manifest: manifests,
    LlmartifactsError: problems,
    InclusionProof: st.builds(
        InclusionProof, st.just(b'{"a":1}'), counts, counts, st.lists(hashes, max_size=3).map(tuple)
    ),
    ConsistencyProof: st.builds(ConsistencyProof, counts, counts, st.lists(hashes, max_size=3).map(tuple)),
    Checkpoint: st.builds(Checkpoint, lines, counts, hashes),
    Retention: st.builds(
        Retention,
        names,
        st.integers(1, 999),
        st.none() | lengths,
        st.lists(names, max_size=3).map(tuple),
        lengths,
        st.sampled_from(["", "old"]),
    ),
}


def of_type(kind, owner: str, name: str):
    special = BY_CLASS.get((owner, name))
    if special is not None:
        return special
    if kind in SPECIAL:
        return SPECIAL[kind]
    if dataclasses.is_dataclass(kind):
        return records_of(kind)
    if kind is datetime:
        return times
    if kind is Digest:
        return digests
    if kind is Verdict or kind is Role:
        return st.sampled_from(list(kind))
    if kind in (bool, int, float, str):
        by_name = {str: BY_FIELD.get(name, lines), int: BY_FIELD.get(name, counts)}
        return {bool: st.booleans(), float: st.floats(-1e6, 1e6), **by_name}[kind]
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if name in ("old", "new"):
            return BY_FIELD[name]
        return st.one_of(*(st.none() if m is type(None) else of_type(m, owner, name) for m in members))
    if origin is typing.Literal:
        return st.sampled_from(members)
    if origin is tuple:
        return st.lists(of_type(members[0], owner, ""), max_size=2, min_size=name == "targets").map(tuple)
    if origin is not None and issubclass(origin, typing.Mapping):
        if name in BY_FIELD:
            return BY_FIELD[name]
        if members[1] in (typing.Any, object):
            return objects
        return st.dictionaries(names, of_type(members[1], owner, ""), max_size=2)
    raise AssertionError(f"{owner}.{name}: {kind}")


def records_of(cls):
    if cls in SPECIAL:
        return SPECIAL[cls]
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{f.name: of_type(hints[f.name], cls.__name__, f.name) for f in dataclasses.fields(cls)})


@pytest.mark.parametrize("body", BODIES, ids=lambda c: c.__name__)
def test_every_record_is_the_same_after_its_journey(body):
    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(records_of(body.RECORD))
    def travels(record):
        sent = body.of(record).to_bytes()
        read = read_body(body, sent)
        back = read.record()
        if isinstance(record, LlmartifactsError):
            assert (type(back), back.details(), str(back)) == (type(record), record.details(), str(record))
        else:
            assert repr_errors(back) == repr_errors(record)
        assert json.loads(body.of(back).to_bytes()) == json.loads(sent)

    travels()


def repr_errors(value):
    """Errors are compared by what they say: two of them are never equal."""
    if isinstance(value, LlmartifactsError):
        return (type(value), str(value), value.details())
    if isinstance(value, tuple):
        return tuple(repr_errors(one) for one in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, Manifest):
        return (type(value), {f.name: repr_errors(getattr(value, f.name)) for f in dataclasses.fields(value)})
    return value


@pytest.mark.parametrize("body", [b for b in BODIES if b.RECORD is not LlmartifactsError], ids=lambda c: c.__name__)
def test_a_body_has_exactly_the_fields_of_its_record(body):
    wanted = {f.name for f in dataclasses.fields(body.RECORD)}
    given_names = {info.alias or name for name, info in body.model_fields.items()}
    assert given_names - {"schema"} == wanted


def test_every_record_that_the_backend_speaks_of_has_a_body():
    inside = [*vars(backend).values(), *vars(approval).values(), *vars(audit).values(), *vars(lineage).values()]
    wanted = {c for c in inside if isinstance(c, type) and dataclasses.is_dataclass(c) and "records" in c.__module__}
    left_out = {backend.Reading, backend.Found, Reference}  # `reading.py` writes the first two
    left_out.add(backend.Repaired)  # done on the server's host only
    assert wanted - left_out <= NAMED.keys()


VERSION = Version("default", "kb", "files", 1, digest_of(b"1"), datetime(2026, 1, 1, tzinfo=UTC))
DRAFT = backend.Draft("kb", Manifest.build("files", {"a": 1}), "first", {"k": "v"}, ("staging",))


@pytest.mark.parametrize(
    ("change", "field", "cls"),
    [
        ({"extra": 1}, "extra", InvalidInput),
        ({"name": 5}, "name", InvalidInput),
        ({"name": "../a"}, "name", InvalidReference),
        ({"name": "SHA256"}, "name", InvalidReference),
        ({"name": "a" * 129}, "name", InvalidReference),
        ({"name": "a\n"}, "name", InvalidReference),
        ({"message": "x" * 16_385}, "message", TooLarge),
        ({"message": "bell \x07"}, "message", InvalidInput),
        ({"message": None}, "message", InvalidInput),
        ({"tags": {"k": "v\nw"}}, "tags", InvalidReference),
        ({"tags": {"k": 1}}, "tags", InvalidReference),
        ({"tags": {f"k{i}": "" for i in range(257)}}, "tags", TooLarge),
        ({"aliases": ["latest"]}, "aliases[0]", InvalidReference),
        ({"aliases": ["v3"]}, "aliases[0]", InvalidReference),
        ({"aliases": "prod"}, "aliases", InvalidInput),
        ({"inputs": [{"reference": "a:b:c"}]}, "inputs[0].reference", InvalidReference),
        ({"inputs": [{"reference": "a", "relation": "likes"}]}, "inputs[0].relation", InvalidInput),
        ({"git_commit": "HEAD"}, "git_commit", InvalidInput),
        ({"manifest": {}}, "manifest.schema", InvalidInput),
        ({"manifest": 1}, "manifest", InvalidInput),
    ],
)
def test_what_is_not_as_it_must_be_is_refused_with_the_field_named(change, field, cls):
    value = moves.Draft.of(DRAFT).plain() | change
    with pytest.raises(cls) as error:
        read_body(moves.Draft, json.dumps(value).encode())
    assert error.value.field == field
    assert type(error.value) is cls


@pytest.mark.parametrize(
    "text",
    [b'{"a": NaN}', b'{"a": 1, "a": 1}', b"{", b"\xff", b"[" * 100 + b"]" * 100, b'{"a": 9007199254740993}'],
    ids=repr,
)
def test_json_that_two_readers_could_take_differently_is_refused(text):
    with pytest.raises(InvalidManifest):
        read_body(moves.Draft, text)


def test_a_body_that_is_too_long_is_refused_before_it_is_read():
    with pytest.raises(TooLarge):
        read_body(moves.Draft, b" " * 200, max_bytes=100)


def test_numbers_are_neither_booleans_nor_text():
    value = moves.Move(name="a", alias="b", number=1, old=None, new=1).plain()
    for wrong in (True, "1", 1.5, -1, 2**60):
        with pytest.raises(LlmartifactsError):
            read_body(moves.Move, json.dumps(value | {"number": wrong}).encode())


def test_a_manifest_that_lies_about_its_order_is_refused():
    manifest = Manifest.build("files", {}, [Descriptor("a", digest_of(b"a"), 1), Descriptor("b", digest_of(b"b"), 1)])
    value = json.loads(manifest.to_bytes())
    value["files"].reverse()
    body = read_body(bodies.versions.Manifest, json.dumps(value).encode())
    with pytest.raises(InvalidManifest):
        body.record()


def test_fields_that_a_newer_server_added_are_left_out_of_its_answers_and_of_nothing_else():
    value = moves.Draft.of(DRAFT).plain()
    value["newer"] = {"a": 1}
    value["manifest"]["newer"] = 2
    value["inputs"] = [{"reference": "a:v1", "newer": 3}]
    assert read_answer(moves.Draft, value).record().manifest == DRAFT.manifest
    with pytest.raises(InvalidInput):
        read_body(moves.Draft, json.dumps(moves.Draft.of(DRAFT).plain() | {"newer": 1}).encode())
    with pytest.raises(InvalidReference):
        read_answer(moves.Draft, moves.Draft.of(DRAFT).plain() | {"newer": 1, "name": "?"})


def test_what_is_sent_as_a_query_is_what_was_not_the_default():
    query = CollectionsQuery(kind="prompt", after="a")
    assert query.pairs() == {"kind": "prompt", "after": "a"}
    assert CollectionsQuery().pairs() == {}
    assert VersionsQuery(tag=["a=b", "c=d=e"]).pairs() == {"tag": ["a=b", "c=d=e"]}
    assert VersionsQuery(tag=["a=b", "c=d=e"]).tags() == {"a": "b", "c": "d=e"}


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "1_0", " 1", "1.0", "x", ""])
def test_a_number_in_a_query_is_digits_within_its_bounds(limit):
    with pytest.raises(ValueError):
        CollectionsQuery.model_validate({"limit": limit})
    assert CollectionsQuery.model_validate({"limit": "1000"}).limit == 1000


def test_a_checkpoint_has_its_root_in_hex():
    body = audit_bodies.Checkpoint.of(Checkpoint("llmartifacts/0", 3, b"\x01" * 32))
    assert json.loads(body.to_bytes())["root"] == "01" * 32


def test_the_hint_of_a_problem_comes_back_as_what_to_do_next():
    problem = Problem.of(NotFound("gone", next_step="Look elsewhere."))
    assert problem.record().hint() == "Look elsewhere."
    assert Problem.of(NotFound("gone", near=("a",))).record().next_step == ""


def test_json_of_a_version_reads_as_people_expect():
    assert canonical.parse_json(bodies.versions.Version.of(VERSION).to_bytes())["created_at"] == (
        "2026-01-01T00:00:00.000000Z"
    )


def test_a_body_of_too_many_values_or_mistakes_is_refused_before_they_take_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from llmartifacts.wire.bodies import base

    with pytest.raises(TooLarge, match="values"):
        read_body(moves.Draft, b"[" + b"[]," * 100 + b"[]]", max_parts=100)
    wrong = b'{"drafts": [' + b'{"a": 1},' * 50_000 + b"0]}"
    with pytest.raises(InvalidInput, match=r"missing \(and 2 more\)"):
        read_body(moves.Drafts, wrong)  # of one of them, not of all
    monkeypatch.setattr(base, "MAX_UNKNOWN", 10)
    plain = moves.Draft.of(DRAFT).plain()
    with pytest.raises(InvalidInput, match=r"unknown field \(and 9 more\)"):
        read_body(moves.Draft, json.dumps(plain | {f"more{n}": n for n in range(10)}).encode())
    with pytest.raises(InvalidInput, match=r"unknown field \(field body\)"):
        read_body(moves.Draft, json.dumps(plain | {f"more{n}": n for n in range(40)}).encode())
    monkeypatch.setattr(base, "MAX_WRONG", 5)
    with pytest.raises(InvalidInput, match="10 fields are wrong"):
        read_body(moves.Draft, json.dumps(plain | {f"more{n}": n for n in range(10)}).encode())
