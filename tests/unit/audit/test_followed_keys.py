"""No bundle is given that a reader of an older key would take for tampered."""

import json
from uuid import UUID

import pytest

from app.audit.followed_keys import require_followed
from app.audit.key_book import KeyHistory
from app.audit.log_entries import OpenedEntry
from app.domain.errors import NotSequencedError
from app.domain.run import RunId, TenantId
from app.keys.signing_keys import SigningKey
from app.ledger.key_statements import KeyChange
from app.storage.entry_store import StoredEntry
from tests.unit.audit.test_retired_writers import NEW, OLD, stored

LATE, COVERED = 9, 10  # sizes of the operator's checkpoint: the change stands at index 9


def entry(kind: str, note: object, index: int | None = 9) -> OpenedEntry:
    log, run = TenantId(UUID(int=1)), RunId(UUID(int=2))
    told = StoredEntry(
        run_id=run,
        seq=9,
        header=b"{}",
        rc=bytes(32),
        chain=bytes(32),
        previous=bytes(32),
        blob=b"",
        kek_id=None,
        wrapped=None,
        index=index,
    )
    return OpenedEntry(
        log=log,
        stored=told,
        kind=kind,
        header=b"{}",
        previous=bytes(32),
        salt=bytes(32),
        value=json.dumps(note).encode(),
    )


def history(role: str, new: SigningKey = NEW, index: int | None = 9) -> KeyHistory:
    change = KeyChange(role=role, old=OLD.public_key, new=new.public_key, sizes={})
    entries = (entry("key.retired", {}), entry("key.rotated", {}, index))
    return KeyHistory(entries=entries, rotations=(change,), retired={})


@pytest.mark.parametrize("index", [9, None])
def test_a_writer_of_a_key_whose_rotation_is_not_covered_yet_is_kept_back(
    index: int | None,
) -> None:
    told = history("enrolment", index=index)
    with pytest.raises(NotSequencedError):
        require_followed(told, LATE, stored(NEW), [])
    require_followed(told, LATE, stored(OLD), [])


def test_once_it_is_covered_the_bundle_is_given() -> None:
    require_followed(history("enrolment"), COVERED, stored(NEW), [])


def test_so_is_a_statement_of_such_a_key() -> None:
    signer = SigningKey(b"e" * 32)
    statement = entry("erasure.delete_run", {"key": signer.public_key.hex()})
    with pytest.raises(NotSequencedError):
        require_followed(history("erasure", signer), LATE, stored(OLD), [statement])
    require_followed(history("erasure", signer), COVERED, stored(OLD), [statement])
    require_followed(history("erasure"), LATE, stored(OLD), [statement])
