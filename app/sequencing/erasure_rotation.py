"""Lets the erasure key give way to the next one, between two erasures.

Nobody signs an erasure while this goes on, so that all records under the old key have their place
in their logs before the record of the change says how far it counts. Then the key file is swapped,
and the old key is gone.

Source: docs/ledger-format.md section 11.

Threat: Ledger tampering
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from app.administration.admin_log import AdminLog
from app.keys.erasure_keys import NAME, ErasureKeyFile
from app.ledger.key_statements import ROTATED, KeyChange, rotation_note
from app.sequencing.settling import Settling


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureRotation:
    """One rotation, by a process that has the erasure key and the sequencer's login."""

    admin_log: AdminLog
    file: ErasureKeyFile
    publish: Callable[[bytes], None]  # readers of the key directory believe this key from now on
    recorded: Callable[[], Awaitable[Sequence[KeyChange]]]
    settling: Settling

    async def rotate(self) -> KeyChange:
        """The change, which is durable when this returns. A rotation that was cut short goes on.

        RotationRefusedError, KeyStoreError while somebody signs an erasure.
        """
        operator = await self.admin_log.operator_log_id()
        with self.file.rotating() as (old, new):
            self.publish(new.public_key)
            known = [item for item in await self.recorded() if item.new == new.public_key]
            if known:
                change = known[0]
            else:
                sizes = await self.settling.sizes(operator)
                change = KeyChange(role=NAME, old=old.public_key, new=new.public_key, sizes=sizes)
                note = rotation_note(change, old.sign, new.sign)
                await self.admin_log.append(operator, ROTATED, note)
            self.file.swap()
        return change
