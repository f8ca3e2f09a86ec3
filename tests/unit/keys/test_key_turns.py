"""Who signs with a key and who rotates it never do so at the same moment."""

import os
from pathlib import Path

import pytest

from app.domain.errors import KeyStoreError
from app.keys.enrolment_keys import EnrolmentKeys
from app.keys.erasure_keys import ErasureKeyFile
from app.keys.signing_keys import ENROLMENT, SigningKeys


def test_many_are_certified_at_once_and_nobody_while_the_key_is_rotated(tmp_path: Path) -> None:
    one, other = (SigningKeys(tmp_path, os.urandom) for _ in range(2))
    with one.certifying() as mine, other.certifying() as theirs:
        assert mine.public_key == theirs.public_key
        with (
            pytest.raises(KeyStoreError, match="another process signs with the enrolment key"),
            other.rotating_enrolment(),
        ):
            pass
    with one.rotating_enrolment():
        with (
            pytest.raises(KeyStoreError, match="another process rotates the enrolment key"),
            other.certifying(),
        ):
            pass
        made = one.add(ENROLMENT)
    with other.certifying() as key:
        assert key.public_key == made.public_key


def test_a_checker_learns_of_the_next_enrolment_key_and_keeps_the_old_one(tmp_path: Path) -> None:
    signing = SigningKeys(tmp_path, os.urandom)
    keys = EnrolmentKeys(signing)
    old = signing.current(ENROLMENT).public_key
    assert list(keys) == [old]
    new = signing.add(ENROLMENT).public_key
    keys.look_again()
    assert list(keys) == [old, new]
    assert new in keys
    assert len(keys) == 2


def test_nobody_signs_an_erasure_while_its_key_is_rotated(tmp_path: Path) -> None:
    one, other = (ErasureKeyFile(tmp_path / "e" / "key", os.urandom) for _ in range(2))
    with (
        one.signing() as old,
        pytest.raises(KeyStoreError, match="another process signs with the erasure key"),
        other.rotating(),
    ):
        pass
    with one.rotating() as (present, following):
        assert present.public_key == old.public_key
        with (
            pytest.raises(KeyStoreError, match="another process rotates the erasure key"),
            other.signing(),
        ):
            pass
        one.swap()
    with other.signing() as new:
        assert new.public_key == following.public_key


def test_after_half_a_rotation_nobody_signs_and_it_goes_on_with_the_same_key(
    tmp_path: Path,
) -> None:
    file = ErasureKeyFile(tmp_path / "e" / "key", os.urandom)
    with file.rotating() as (_, made):
        pass  # it ended here, perhaps after the change was recorded
    with pytest.raises(KeyStoreError, match="begun and is not finished"), file.signing():
        pass
    with file.rotating() as (_, again):
        assert again.public_key == made.public_key
        file.swap()
    assert file.current().public_key == made.public_key
    assert not (tmp_path / "e" / "key.next").exists()
