"""Signing keys are made once, belong to their owner alone, and are never half a key."""

import os
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.domain.errors import KeyStoreError
from app.keys.key_store import FileKeyStore
from app.keys.signing_keys import ENROLMENT, LOG, SigningKey, SigningKeys


def test_a_key_is_made_once_and_is_the_same_ever_after(tmp_path: Path) -> None:
    one = SigningKeys(tmp_path, os.urandom).current(LOG)
    two = SigningKeys(tmp_path, os.urandom).current(LOG)
    assert one.public_key == two.public_key
    assert one.public_key != SigningKeys(tmp_path, os.urandom).current(ENROLMENT).public_key
    Ed25519PublicKey.from_public_bytes(one.public_key).verify(two.sign(b"said"), b"said")


def test_of_many_at_once_all_have_the_same_key(tmp_path: Path) -> None:
    found: list[bytes] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(SigningKeys(tmp_path, os.urandom).current(LOG).public_key)
        )
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1
    assert [path.name for path in (tmp_path / "signing").iterdir()] == ["log.1"]


def test_files_are_the_owners_alone(tmp_path: Path) -> None:
    SigningKeys(tmp_path, os.urandom).current(LOG)
    file = tmp_path / "signing" / "log.1"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    file.chmod(0o640)
    with pytest.raises(KeyStoreError, match="0600"):
        SigningKeys(tmp_path, os.urandom).current(LOG)


def test_a_new_version_is_current_and_the_old_one_is_kept(tmp_path: Path) -> None:
    keys = SigningKeys(tmp_path, os.urandom)
    old = keys.current(LOG)
    new = keys.add(LOG)
    assert keys.current(LOG).public_key == new.public_key
    assert [key.public_key for key in keys.every(LOG)] == [old.public_key, new.public_key]
    assert keys.every(ENROLMENT) == ()


@pytest.mark.parametrize("damage", ["cut", "flip", "long", "renamed"])
def test_a_damaged_or_renamed_file_is_no_key(tmp_path: Path, damage: str) -> None:
    keys = SigningKeys(tmp_path, os.urandom)
    keys.current(LOG)
    keys.current(ENROLMENT)
    file = tmp_path / "signing" / "log.1"
    raw = file.read_bytes()
    match damage:
        case "cut":
            file.write_bytes(raw[:-1])
        case "flip":
            file.write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
        case "long":
            file.write_bytes(raw + b"\0")
        case _:
            (tmp_path / "signing" / "enrolment.1").replace(file)
    with pytest.raises(KeyStoreError, match=r"log\.1 is damaged") as told:
        keys.current(LOG)
    assert str(tmp_path) not in str(told.value)


def test_no_repr_shows_a_key() -> None:
    seed = os.urandom(32)
    assert seed.hex() not in repr(SigningKey(seed))
    assert repr(seed) not in repr(SigningKey(seed))


def test_a_key_store_beside_them_sees_no_kek(tmp_path: Path) -> None:
    top = tmp_path / "keys"
    store = FileKeyStore(top, os.urandom)
    SigningKeys(top, os.urandom).current(LOG)
    assert store.kek_ids("") == ()
