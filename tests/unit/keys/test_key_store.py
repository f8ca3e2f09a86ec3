import multiprocessing
import os
import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from app.domain.errors import ConfigurationError, KeyStoreError
from app.keys.key_store import FileKeyStore, KeyStore

LEDGER = f"ledger/{'ab' * 16}/20260101"
WORK = "work/20260101"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
KEY = b"k" * 32


def make_store(directory: Path) -> FileKeyStore:
    return FileKeyStore(directory, secrets.token_bytes)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_what_is_wrapped_opens_again_here_and_in_another_process_of_the_store(home: Path) -> None:
    store: KeyStore = make_store(home)
    for kek_id in (LEDGER, WORK):
        store.create_kek(kek_id)
        wrapped = store.wrap(kek_id, KEY, b"run")
        assert len(wrapped) == 12 + 32 + 16
        assert store.wrap(kek_id, KEY, b"run") != wrapped
        assert store.unwrap(kek_id, wrapped, b"run") == KEY
        assert make_store(home).unwrap(kek_id, wrapped, b"run") == KEY


def test_a_mac_is_the_same_in_another_process_and_of_another_kek_another(home: Path) -> None:
    store = make_store(home)
    for kek_id in (LEDGER, WORK):
        store.create_kek(kek_id)
    mac = store.mac(WORK, b"message")
    assert len(mac) == 32
    assert make_store(home).mac(WORK, b"message") == mac
    assert store.mac(WORK, b"messagf") != mac
    assert store.mac(LEDGER, b"message") != mac
    store.destroy_kek(WORK, now=NOW)
    with pytest.raises(KeyStoreError):
        store.mac(WORK, b"message")
    store.create_kek(WORK)
    assert store.mac(WORK, b"message") != mac, "what a dead key made nobody can make again"


def test_creating_twice_keeps_the_first_key(home: Path) -> None:
    store = make_store(home)
    store.create_kek(WORK)
    wrapped = store.wrap(WORK, KEY, b"")
    store.create_kek(WORK)
    make_store(home).create_kek(WORK)
    assert store.unwrap(WORK, wrapped, b"") == KEY


@pytest.mark.parametrize(
    "spoil",
    [
        lambda w: w[:-1],
        lambda w: w[:11],
        lambda _: b"",
        lambda w: w[:20] + bytes([w[20] ^ 1]) + w[21:],
        lambda w: bytes([w[0] ^ 1]) + w[1:],
    ],
)
def test_a_changed_byte_does_not_open(home: Path, spoil: Callable[[bytes], bytes]) -> None:
    store = make_store(home)
    store.create_kek(WORK)
    with pytest.raises(KeyStoreError, match=WORK):
        store.unwrap(WORK, spoil(store.wrap(WORK, KEY, b"a")), b"a")


def test_another_context_or_another_kek_does_not_open(home: Path) -> None:
    store = make_store(home)
    store.create_kek(WORK)
    store.create_kek(LEDGER)
    wrapped = store.wrap(WORK, KEY, b"a")
    for kek_id, aad in ((WORK, b"b"), (LEDGER, b"a")):
        with pytest.raises(KeyStoreError):
            store.unwrap(kek_id, wrapped, aad)


def test_files_and_directories_are_private_whatever_the_umask(home: Path) -> None:
    old = os.umask(0)
    try:
        make_store(home).create_kek(LEDGER)
    finally:
        os.umask(old)
    for path in (home, home / "ledger", (home / LEDGER).parent):
        assert path.stat().st_mode & 0o777 == 0o700
    assert (home / LEDGER).stat().st_mode & 0o777 == 0o600
    assert [p.name for p in (home / LEDGER).parent.iterdir()] == ["20260101"]  # no draft is left


@pytest.mark.parametrize(
    "kek_id",
    [
        "",
        "work",
        "work/2026010",
        "work/20260101/",
        "/work/20260101",
        "../work/20260101",
        "work/../20260101",
        "work/20260101\n",
        "work/\u0662\u0660\u0662\u0666\u0660\u0661\u0660\u0661",
        "Work/20260101",
        f"ledger/{'AB' * 16}/20260101",
        f"ledger/{'ab' * 15}/20260101",
        f"ledger/{'ab' * 16}/../20260101",
        "work/20260101\0",
        "work/20260101.",
        "work/20260101.0",
        "work/20260101.01",
        "work/20260101.1.2",
    ],
)
def test_an_id_outside_the_pattern_reaches_no_file(home: Path, kek_id: str) -> None:
    store = make_store(home)
    for act in (
        lambda: store.create_kek(kek_id),
        lambda: store.wrap(kek_id, KEY, b""),
        lambda: store.unwrap(kek_id, KEY, b""),
        lambda: store.has_kek(kek_id),
        lambda: store.destroy_kek(kek_id, now=NOW),
    ):
        with pytest.raises(KeyStoreError, match="not a KEK id"):
            act()
    assert list(home.rglob("*")) == []


def test_a_kek_that_was_never_made_wraps_and_opens_nothing(home: Path) -> None:
    store = make_store(home)
    assert not store.has_kek(WORK)
    for act in (
        lambda: store.wrap(WORK, KEY, b""),
        lambda: store.unwrap(WORK, b"x" * 60, b""),
        lambda: store.destroy_kek(WORK, now=NOW),
    ):
        with pytest.raises(KeyStoreError, match="no such key") as caught:
            act()
        assert str(home) not in str(caught.value)


def test_a_destroyed_kek_opens_nothing_in_any_process_that_held_it(home: Path) -> None:
    ours, theirs = make_store(home), make_store(home)
    ours.create_kek(WORK)
    wrapped = ours.wrap(WORK, KEY, b"")
    assert theirs.unwrap(WORK, wrapped, b"") == KEY  # it is in their memory now
    assert ours.destroy_kek(WORK, now=NOW) == NOW
    assert not theirs.has_kek(WORK)
    for store in (ours, theirs):
        with pytest.raises(KeyStoreError):
            store.unwrap(WORK, wrapped, b"")
        with pytest.raises(KeyStoreError):
            store.wrap(WORK, KEY, b"")
    ours.create_kek(WORK)
    for store in (ours, theirs):
        with pytest.raises(KeyStoreError):
            store.unwrap(WORK, wrapped, b"")


def test_destroying_overwrites_every_name_of_the_file(home: Path, tmp_path: Path) -> None:
    store = make_store(home)
    store.create_kek(WORK)
    path = home / WORK
    (home / "work" / ".new-left-by-a-crash").hardlink_to(path)
    elsewhere = tmp_path / "backup"
    elsewhere.hardlink_to(path)
    store.destroy_kek(WORK, now=NOW)
    assert list((home / "work").iterdir()) == []
    assert set(elsewhere.read_bytes()) == {0}


@pytest.mark.parametrize(
    "content", [b"", b"k" * 32, b"k" * 63, b"k" * 64, b"k" * 65, bytes(64), b"k" * 100]
)
def test_a_truncated_or_foreign_key_file_is_damage_and_no_key(home: Path, content: bytes) -> None:
    make_store(home).create_kek(WORK)
    (home / WORK).write_bytes(content)
    store = make_store(home)
    for act in (lambda: store.wrap(WORK, KEY, b""), lambda: store.create_kek(WORK)):
        with pytest.raises(KeyStoreError, match=f"KEK {WORK} is damaged"):
            act()


def test_one_keks_file_under_another_name_is_damage(home: Path) -> None:
    store = make_store(home)
    store.create_kek(WORK)
    (home / WORK).rename(home / "work/20260102")
    with pytest.raises(KeyStoreError, match="damaged"):
        store.wrap("work/20260102", KEY, b"")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644])
def test_a_key_file_that_others_can_reach_is_refused_even_when_cached(
    home: Path, mode: int
) -> None:
    store = make_store(home)
    store.create_kek(WORK)
    store.wrap(WORK, KEY, b"")
    (home / WORK).chmod(mode)
    with pytest.raises(KeyStoreError, match="mode 0600"):
        store.wrap(WORK, KEY, b"")


def test_a_symlink_or_a_pipe_is_no_key_file(home: Path, tmp_path: Path) -> None:
    store = make_store(home)
    store.create_kek(WORK)
    (home / WORK).rename(tmp_path / "moved")
    (home / WORK).symlink_to(tmp_path / "moved")
    with pytest.raises(KeyStoreError) as caught:
        store.wrap(WORK, KEY, b"")
    assert str(tmp_path) not in str(caught.value)
    (home / WORK).unlink()
    os.mkfifo(home / WORK, 0o600)
    with pytest.raises(KeyStoreError):
        store.wrap(WORK, KEY, b"")


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o770, 0o777, 0o710])
def test_a_directory_that_others_can_reach_is_refused(home: Path, mode: int) -> None:
    home.mkdir()
    home.chmod(mode)
    with pytest.raises(ConfigurationError, match="0700") as caught:
        make_store(home)
    assert str(home) not in str(caught.value)


def test_a_file_in_place_of_the_directory_is_refused(home: Path) -> None:
    home.write_text("")
    with pytest.raises(ConfigurationError) as caught:
        make_store(home)
    assert str(home) not in str(caught.value)


@pytest.mark.parametrize("place", [".", "keys", "a/b/keys"])
def test_a_directory_within_the_data_is_refused_and_not_made(tmp_path: Path, place: str) -> None:
    data = tmp_path / "data"
    with pytest.raises(ConfigurationError, match="hold each other"):
        FileKeyStore(data / place, secrets.token_bytes, forbidden=(data,))
    assert not data.exists()


def test_a_data_directory_within_the_keys_or_behind_a_symlink_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "alias").symlink_to(data)
    for keys, forbidden in ((tmp_path / "alias/keys", data), (tmp_path, data)):
        with pytest.raises(ConfigurationError, match="hold each other"):
            FileKeyStore(keys, secrets.token_bytes, forbidden=(forbidden,))
    FileKeyStore(tmp_path / "data-keys", secrets.token_bytes, forbidden=(data,))


def test_ids_are_listed_by_prefix_and_nothing_else_is(home: Path) -> None:
    store = make_store(home)
    other = f"ledger/{'cd' * 16}/20260102"
    for kek_id in (WORK, "work/20260201", LEDGER, other):
        store.create_kek(kek_id)
    (home / "work" / ".new-00").write_bytes(b"")
    (home / "work" / "notes.txt").write_bytes(b"")
    assert store.kek_ids("") == tuple(sorted([WORK, "work/20260201", LEDGER, other]))
    assert store.kek_ids("work/") == (WORK, "work/20260201")
    assert store.kek_ids("work/202602") == ("work/20260201",)
    assert store.kek_ids(f"ledger/{'ab' * 16}/") == (LEDGER,)
    assert store.kek_ids("nothing/") == ()
    for prefix in ("../", "work/../", "/etc\0", "*"):
        with pytest.raises(KeyStoreError):
            store.kek_ids(prefix)
    assert store.kek_ids("/etc/") == ()


RACERS, ROUNDS = 4, 25


def _race(home: Path, barrier: Barrier, out: Path) -> None:
    store = make_store(home)
    with out.open("wb") as file:
        for n in range(ROUNDS):
            barrier.wait(60)
            kek_id = f"ledger/{n:032x}/20260101"
            store.create_kek(kek_id)
            file.write(store.wrap(kek_id, KEY, b"race"))


def test_processes_that_race_to_make_a_kek_all_use_the_same_one(tmp_path: Path) -> None:
    home = tmp_path / "keys"
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(RACERS)
    outs = [tmp_path / f"out{n}" for n in range(RACERS)]
    racers = [context.Process(target=_race, args=(home, barrier, out)) for out in outs]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(120)
    assert [racer.exitcode for racer in racers] == [0] * RACERS
    store = make_store(home)
    for out in outs:
        wraps = out.read_bytes()
        for n in range(ROUNDS):
            wrapped = wraps[n * 60 : n * 60 + 60]
            assert store.unwrap(f"ledger/{n:032x}/20260101", wrapped, b"race") == KEY
    assert not list(home.rglob(".new-*"))


def test_threads_that_race_to_make_a_kek_all_use_the_same_one(home: Path) -> None:
    stores = [make_store(home) for _ in range(8)]
    start = threading.Barrier(8)
    wrapped: list[bytes] = []

    def run(store: FileKeyStore) -> None:
        start.wait(60)
        store.create_kek(WORK)
        wrapped.append(store.wrap(WORK, KEY, b""))

    threads = [threading.Thread(target=run, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [make_store(home).unwrap(WORK, w, b"") for w in wrapped] == [KEY] * 8
