import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.errors import ConfigurationError
from app.domain.run import Scope
from app.keys.key_ring import (
    AuthFailure,
    KeyGrant,
    KeyRing,
    KeySource,
    development_items,
    new_key,
)

A = "mf_aaaaaaaaaaaaaaaaaaaaaaaaaaaa"
B = "mf_bbbbbbbbbbbbbbbbbbbbbbbbbbbb"
C = "mf_cccccccccccccccccccccccccccc"
ALL = frozenset(Scope)


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def granted(ring: KeyRing, key: str) -> KeyGrant:
    grant = ring.find(key)
    assert grant is not None
    return grant


@pytest.mark.parametrize(
    ("item", "tenant", "scopes"),
    [
        (A, "default", ALL),
        (f"acme:{A}", "acme", ALL),
        (f"acme:run:{A}", "acme", {Scope.RUN}),
        (f"acme:run+approve:{A}", "acme", {Scope.RUN, Scope.APPROVE}),
        (f"a.b_c-9:{A}", "a.b_c-9", ALL),
        (f"{'t' * 64}:{A}", "t" * 64, ALL),
        (f"sha256:{digest(A)}", "default", ALL),
        (f"sha256:{digest(A).upper()}", "default", ALL),
        (f"acme:sha256:{digest(A)}", "acme", ALL),
        (f"acme:audit:sha256:{digest(A)}", "acme", {Scope.AUDIT}),
        (f"  acme:{A}\n", "acme", ALL),
    ],
)
def test_every_accepted_form_grants_what_it_says(
    item: str, tenant: str, scopes: frozenset[Scope]
) -> None:
    grant = granted(KeyRing.parse(item), A)
    assert grant == KeyGrant(tenant=tenant, scopes=frozenset(scopes), fingerprint=digest(A)[:16])


def test_a_list_of_several_forms_keeps_each_grant_apart() -> None:
    ring = KeyRing.parse(f"{A},acme:{B},acme:run:sha256:{digest(C)}")
    assert [granted(ring, k).tenant for k in (A, B, C)] == ["default", "acme", "acme"]
    assert granted(ring, C).scopes == {Scope.RUN}
    assert ring.tenants == {"default", "acme"}
    assert ring.find(digest(C)) is None  # the digest is not the key
    assert ring.find(f"sha256:{digest(C)}") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        (f"{A},", "item 2: empty"),
        (f"{A},,{B}", "item 2: empty"),
        ("acme:", "item 1: empty"),
        (f"{A},{B},{A}", "item 3: the same key as item 1"),
        (f"{A},acme:sha256:{digest(A)}", "item 2: the same key as item 1"),
        (f"{A},short", "item 2: shorter than 24"),
        (f"{'k' * 23}", "item 1: shorter than 24"),
        (f"{A}!", "item 1: a key is made of"),
        (f"{A}\u00e9", "item 1: a key is made of"),
        (f"Acme:{A}", "item 1: a tenant name must match"),
        (f":{A}", "item 1: a tenant name must match"),
        (f"{'t' * 65}:{A}", "item 1: a tenant name must match"),
        (f"run+audit:{A}", "item 1: a tenant name must match"),
        (f"a/b:{A}", "item 1: a tenant name must match"),
        (f"run:{A}", "item 1: the tenant name is a reserved word"),
        (f"operate:run:{A}", "item 1: the tenant name is a reserved word"),
        (f"sha256:run:{A}", "item 1: the tenant name is a reserved word"),
        (f"sha256:{A}", "item 1: sha256: needs 64 hex"),
        (f"acme:sha256:{digest(A)[:-1]}", "item 1: sha256: needs 64 hex"),
        (f"acme:sha256:{digest(A)}0", "item 1: sha256: needs 64 hex"),
        (f"sha256:sha256:{digest(A)}", "item 1: the tenant name is a reserved word"),
        (f"acme:root:{A}", "item 1: an unknown scope"),
        (f"acme::{A}", "item 1: an unknown scope"),
        (f"acme:run+:{A}", "item 1: an unknown scope"),
        (f"acme:RUN:{A}", "item 1: an unknown scope"),
        (f"acme:{A}:run", "item 1: shorter than 24"),
        (f"acme:{A}:{B}", "item 1: an unknown scope"),
        (f"x:acme:run:{A}", "item 1: more parts"),
    ],
)
def test_every_malformed_list_is_refused_by_position_without_the_key(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        KeyRing.parse(text)
    assert told in str(caught.value)
    for key in (A, B, digest(A)[:16]):
        assert key not in str(caught.value)


def test_a_short_key_is_for_development_only() -> None:
    assert KeyRing.parse("k", dev=True).find("k") is not None
    with pytest.raises(ConfigurationError):
        KeyRing.parse("sha256", dev=True)


SHAPES = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.sampled_from(
            [A, B, "acme", "run", "run+audit", "sha256", digest(A), ":", "+", ",", "#"]
        ),
    ),
    max_size=8,
)


@given(parts=SHAPES, glue=st.sampled_from([":", ",", "", "\n", "+"]), dev=st.booleans())
@example(parts=["\ud800"], glue="", dev=True)
def test_the_parser_accepts_or_refuses_and_never_echoes_a_key(
    parts: list[str], glue: str, *, dev: bool
) -> None:
    secret = "Zq" * 16
    for text in (glue.join(parts), glue.join([*parts, secret]), glue.join([secret, *parts])):
        for parse in (KeyRing.parse, KeyRing.parse_lines):
            assert secret not in outcome(parse, text, dev=dev)


def outcome(parse: object, text: str, *, dev: bool) -> str:
    assert callable(parse)
    try:
        ring = parse(text, dev=dev)
    except ConfigurationError as error:
        return f"{error} {error!r} {error.__cause__!r} {error.__context__!r}"
    return f"{ring!r} {ring.grants!r}"


@given(presented=st.text(max_size=60))
@example(presented="\ud800")
def test_only_the_exact_key_is_found(presented: str) -> None:
    ring = KeyRing.parse(f"{A},{B}")
    assert (ring.find(presented) is not None) == (presented in (A, B))


def test_a_search_compares_the_presented_key_with_every_held_one() -> None:
    compared: list[bytes] = []

    class Counting(tuple[tuple[bytes, KeyGrant], ...]):
        """The held digests, noting each one that was looked at."""

        __slots__ = ()

        def __iter__(self) -> Iterator[tuple[bytes, KeyGrant]]:
            for held, grant in super().__iter__():
                compared.append(held)
                yield held, grant

    ring = KeyRing.parse(",".join(f"{A}{n}" for n in range(20)))
    entries = ring._entries
    ring._entries = Counting(entries)
    assert ring.find(f"{A}0") is not None  # the first one: an early exit would stop here
    assert len(compared) == 20


GOOD = f"Bearer {A}"


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "expected"),
    [
        (GOOD, None, "default"),
        (f"bearer {A}", None, "default"),
        (f"BEARER   {A}", None, "default"),
        (None, A, "default"),
        (GOOD, A, "default"),
        (f"Bearer {B}", None, "acme"),
        (None, None, AuthFailure.MISSING),
        (f"Bearer {C}", None, AuthFailure.UNKNOWN),
        (None, C, AuthFailure.UNKNOWN),
        (f"Bearer {C}", C, AuthFailure.UNKNOWN),
        (GOOD, B, AuthFailure.DISAGREE),
        (f"Bearer {C}", A, AuthFailure.DISAGREE),
        (GOOD, C, AuthFailure.DISAGREE),
        ("", A, AuthFailure.MALFORMED),
        ("Bearer", A, AuthFailure.MALFORMED),
        ("Bearer ", A, AuthFailure.MALFORMED),
        (f"Basic {A}", A, AuthFailure.MALFORMED),
        (A, A, AuthFailure.MALFORMED),
        (f"Bearer\t{A}", None, AuthFailure.MALFORMED),
        (f" {GOOD}", None, AuthFailure.MALFORMED),
        (f"{GOOD} ", None, AuthFailure.MALFORMED),
        (f"{GOOD}\n", None, AuthFailure.MALFORMED),
        (f"{GOOD}, {GOOD}", None, AuthFailure.MALFORMED),
        (f"Bearer {A} {A}", None, AuthFailure.MALFORMED),
        (GOOD, "", AuthFailure.MALFORMED),
        (GOOD, f"{A}\n", AuthFailure.MALFORMED),
        (None, f"Bearer {A}", AuthFailure.MALFORMED),
        (None, f"{A}\u00e9", AuthFailure.MALFORMED),
        (f"Bearer sha256:{digest(A)}", None, AuthFailure.MALFORMED),
        (f"Bearer {digest(A)}", None, AuthFailure.UNKNOWN),
        (f"Bearer {A.upper()}", None, AuthFailure.UNKNOWN),
    ],
)
def test_two_headers_one_answer(
    authorization: str | None, x_api_key: str | None, expected: str | AuthFailure
) -> None:
    answer = KeyRing.parse(f"{A},acme:{B}").authenticate(authorization, x_api_key)
    told = answer.tenant if isinstance(answer, KeyGrant) else answer
    assert told == expected
    assert isinstance(answer, AuthFailure) == isinstance(expected, AuthFailure)


class TestKeyFile:
    def test_lines_blank_lines_and_comments(self, tmp_path: Path) -> None:
        path = tmp_path / "keys"
        path.write_text(f"# rota\r\n\n  {A}  \r\nacme:run:{B}\n # end\n")
        ring = KeySource.from_file(path).ring
        assert granted(ring, A).tenant == "default"
        assert granted(ring, B).scopes == {Scope.RUN}
        assert len(ring) == 2

    def test_a_refusal_names_the_line(self, tmp_path: Path) -> None:
        path = tmp_path / "keys"
        path.write_text(f"# one\n{A}\n\nacme:nope:{B}\n")
        with pytest.raises(ConfigurationError, match="line 4: an unknown scope") as caught:
            KeySource.from_file(path)
        assert B not in str(caught.value)

    @pytest.mark.parametrize("content", [b"", b"# nothing\n\n", b"\xff\xfe" + A.encode()])
    def test_a_start_without_keys_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "keys"
        path.write_bytes(content)
        with pytest.raises(ConfigurationError):
            KeySource.from_file(path)

    def test_a_missing_file_is_refused_without_its_path(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError) as caught:
            KeySource.from_file(tmp_path / "nowhere")
        assert str(tmp_path) not in str(caught.value)

    def test_removing_a_key_revokes_it_and_adding_one_grants_it(self, tmp_path: Path) -> None:
        path = tmp_path / "keys"
        path.write_text(f"{A}\n{B}\n")
        source = KeySource.from_file(path)
        assert source.reload_if_changed() is None
        path.write_text(f"acme:{B}\n{C}\n")
        report = source.reload_if_changed()
        assert report is not None
        assert report.removed == (digest(A)[:16],)
        assert report.added == (digest(C)[:16],)
        assert report.changed == (digest(B)[:16],)
        assert source.ring.find(A) is None
        assert granted(source.ring, B).tenant == "acme"
        assert source.ring.find(C) is not None
        assert source.reload_if_changed() is None

    def test_an_edit_of_equal_length_and_time_is_seen(self, tmp_path: Path) -> None:
        path = tmp_path / "keys"
        path.write_text(A)
        before = path.stat()
        source = KeySource.from_file(path)
        path.write_text(B)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = path.stat()
        assert (after.st_size, after.st_ino, after.st_mtime_ns) == (
            before.st_size,
            before.st_ino,
            before.st_mtime_ns,
        )
        assert source.reload_if_changed() is not None
        assert source.ring.find(A) is None

    def test_the_symlink_swap_of_a_mounted_secret_is_seen(self, tmp_path: Path) -> None:
        for version, key in (("v1", A), ("v2", B)):
            (tmp_path / version).mkdir()
            (tmp_path / version / "keys").write_text(key)
        (tmp_path / "..data").symlink_to("v1")
        (tmp_path / "keys").symlink_to("..data/keys")
        source = KeySource.from_file(tmp_path / "keys")
        (tmp_path / "..data_tmp").symlink_to("v2")
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")
        assert source.reload_if_changed() is not None
        assert source.ring.find(A) is None
        assert source.ring.find(B) is not None

    @pytest.mark.parametrize("content", [b"bad key!", b"\xff" + B.encode(), B.encode() + b":x:y:z"])
    def test_a_malformed_file_keeps_the_old_keys_and_is_told_once(
        self, tmp_path: Path, content: bytes
    ) -> None:
        path = tmp_path / "keys"
        path.write_text(A)
        source = KeySource.from_file(path)
        path.write_bytes(content)
        report = source.reload_if_changed()
        assert report is not None
        assert report.error is not None
        assert B not in report.error
        assert source.ring.find(A) is not None
        assert source.reload_if_changed() is None
        assert source.reload().error is not None
        path.write_text(A)
        recovered = source.reload_if_changed()
        assert recovered is not None
        assert recovered.error is None

    def test_a_vanished_file_keeps_the_old_keys_and_is_told_once(self, tmp_path: Path) -> None:
        path = tmp_path / "keys"
        path.write_text(A)
        source = KeySource.from_file(path)
        path.unlink()
        report = source.reload_if_changed()
        assert report is not None
        assert report.error is not None
        assert str(tmp_path) not in report.error
        assert source.ring.find(A) is not None
        assert source.reload_if_changed() is None

    @pytest.mark.parametrize("content", ["", "\n\n", "# nobody\n"])
    def test_an_emptied_file_revokes_everybody(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "keys"
        path.write_text(f"{A}\n{B}")
        source = KeySource.from_file(path)
        path.write_text(content)
        report = source.reload()
        assert report.error is None
        assert len(report.removed) == 2
        assert source.ring.find(A) is None
        assert source.ring.authenticate(GOOD, None) is AuthFailure.UNKNOWN


def test_a_ring_from_the_environment_never_changes() -> None:
    source = KeySource.from_list(A)
    assert source.reload_if_changed() is None
    assert source.reload().error is None
    assert source.ring.find(A) is not None


def test_new_keys_are_long_distinct_and_acceptable() -> None:
    keys = {new_key(secrets.token_urlsafe) for _ in range(50)}
    assert len(keys) == 50
    assert all(re.fullmatch(r"mf_[A-Za-z0-9_-]{43}", key) for key in keys)
    assert len(KeyRing.parse(",".join(sorted(keys)))) == 50


def test_the_two_development_keys_have_the_documented_scopes() -> None:
    ring = KeyRing.parse(development_items(A, B))
    assert granted(ring, A).scopes == ALL - {Scope.APPROVE}
    assert granted(ring, B).scopes == {Scope.APPROVE, Scope.AUDIT, Scope.POLICY}


def test_the_ring_keeps_no_key_in_clear() -> None:
    ring = KeyRing.parse(f"{A},acme:{B}")
    assert A not in repr(ring._entries)
    assert all(len(held) == 32 and held != A.encode() for held, _ in ring._entries)
