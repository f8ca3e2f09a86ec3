"""Attacks on what was said: payload bytes, salts, swaps, columns and the bytes of headers."""

import json
from datetime import timedelta

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.tampering.attack import AttackClass, Deed
from bench.tampering.forging import FIELD_NAMES, Row, encode, header_of, opened, rehash, sealed
from bench.tampering.hands import Hands
from bench.tampering.run_ref import RunRef
from tests.support.independent_reader import unwrap_run_key

_HEAD = 12 + 32  # nonce and salt; the first 200 characters of the value follow


async def flip_early(hands: Hands) -> Deed:
    """One bit within the first 200 bytes of a value."""
    run = hands.any_run()
    row = await hands.some_payload(run)
    length = len(row["blob"]) - _HEAD - 16
    return await _flip(hands, row, _HEAD + hands.rng.randrange(min(length, 200)), run)


async def flip_late(hands: Hands) -> Deed:
    """One bit beyond the first 200 bytes: in a long value, else in the tag at the end."""
    run = hands.any_run()
    rows = await hands.payloads(run)
    long = [row for row in rows if len(row["blob"]) > _HEAD + 216] or rows
    row = hands.rng.choice(long)
    first = min(_HEAD + 200, len(row["blob"]) - 16)
    return await _flip(hands, row, hands.rng.randrange(first, len(row["blob"])), run)


async def flip_salt(hands: Hands) -> Deed:
    """One bit of the sealed salt or of the nonce."""
    run = hands.any_run()
    return await _flip(hands, await hands.some_payload(run), hands.rng.randrange(_HEAD), run)


async def _flip(hands: Hands, row: Row, place: int, run: RunRef) -> Deed:
    blob = bytearray(row["blob"])
    blob[place] ^= 1 << hands.rng.randrange(8)
    await hands.put_payload({**row, "blob": bytes(blob)})
    return Deed(runs=(run,))


async def reseal_value(hands: Hands) -> Deed:
    """With the run key: another text of the same length under the same salt, sealed properly."""
    run = hands.any_run()
    key, row = await hands.run_key(run), await hands.some_payload(run)
    clear = bytearray(opened(key, row))
    place = 32 + hands.rng.randrange(len(clear) - 32)
    clear[place] = 0x30 + (clear[place] + 1) % 10
    await hands.put_payload(_sealed_again(key, row, bytes(clear)))
    return Deed(runs=(run,))


async def reseal_salt(hands: Hands) -> Deed:
    """With the run key: the same text under another salt."""
    run = hands.any_run()
    key, row = await hands.run_key(run), await hands.some_payload(run)
    clear = bytearray(opened(key, row))
    clear[hands.rng.randrange(32)] ^= 1 << hands.rng.randrange(8)
    await hands.put_payload(_sealed_again(key, row, bytes(clear)))
    return Deed(runs=(run,))


def _sealed_again(key: bytes, row: Row, clear: bytes) -> Row:
    log, run = row["tenant_id"].hex, row["run_id"].hex
    blob = sealed(key, log, run, row["seq"], row["field"], clear)
    return {**row, "blob": blob}


async def forge_kept_output(hands: Hands) -> Deed:
    """With the work key: another full output in the place of the one that is kept for a day."""
    run = hands.any_run()
    held = await hands.sql.fetchrow(
        "SELECT * FROM run_result WHERE tenant_id = $1 AND run_id = $2", *run.ids
    )
    place = bytes.fromhex(run.log) + bytes.fromhex(run.run)
    key = unwrap_run_key(hands.key_file(held["kek_id"]), held["wrapped"], place[:16], place[16:])
    nonce = hands.rng.randbytes(12)
    text = AESGCM(key).decrypt(held["blob"][:12], held["blob"][12:], place)
    forged = text.replace(b"=", b"is", 1) + b" Paid in full."
    await hands.sql.execute(
        "UPDATE run_result SET blob = $3 WHERE tenant_id = $1 AND run_id = $2",
        *run.ids,
        nonce + AESGCM(key).encrypt(nonce, forged, place),
    )
    return Deed(runs=(run,))


async def swap_rows(hands: Hands) -> Deed:
    """The blobs of two rows change places."""
    run = hands.any_run()
    one, other = hands.rng.sample(await hands.payloads(run), 2)
    await hands.put_payload({**one, "blob": other["blob"]})
    await hands.put_payload({**other, "blob": one["blob"]})
    return Deed(runs=(run,))


async def swap_rows_resealed(hands: Hands) -> Deed:
    """With the run key: salt and text of two rows change places, each sealed for its new place."""
    run = hands.any_run()
    key = await hands.run_key(run)
    one, other = hands.rng.sample(await hands.payloads(run), 2)
    first, second = opened(key, one), opened(key, other)
    await hands.put_payload(_sealed_again(key, one, second))
    await hands.put_payload(_sealed_again(key, other, first))
    return Deed(runs=(run,))


async def swap_input_and_output(hands: Hands) -> Deed:
    """With the run key: what was asked and what came back change places."""
    run = hands.any_run()
    key = await hands.run_key(run)
    rows = await hands.payloads(run)
    asked = next(row for row in rows if FIELD_NAMES[row["field"]] == "task")
    said = next(row for row in rows if FIELD_NAMES[row["field"]] == "output")
    first, second = opened(key, asked), opened(key, said)
    await hands.put_payload(_sealed_again(key, asked, second))
    await hands.put_payload(_sealed_again(key, said, first))
    return Deed(runs=(run,))


async def swap_across_runs(hands: Hands) -> Deed:
    """The blobs of the same place in two runs change places."""
    one = hands.any_run()
    other = hands.rng.choice([run for run in hands.scene.closed if run != one])
    row = await hands.some_payload(one)
    there = await hands.payloads(other, row["seq"])
    twin = next(found for found in there if found["field"] == row["field"])
    await hands.put_payload({**row, "blob": twin["blob"]})
    await hands.put_payload({**twin, "blob": row["blob"]})
    return Deed(runs=(one, other))


async def change_kind(hands: Hands) -> Deed:
    """The column `kind` of a record."""
    run = hands.any_run()
    rows = await hands.records(run)
    row = hands.rng.choice(rows)
    kind = hands.rng.choice(sorted({r["kind"] for r in rows} - {row["kind"]}))
    await hands.set_record(run, row["seq"], kind=kind)
    return Deed(runs=(run,))


async def change_epoch(hands: Hands) -> Deed:
    """The column `epoch` of a record."""
    run = hands.any_run()
    row = hands.rng.choice(await hands.records(run))
    await hands.set_record(run, row["seq"], epoch=row["epoch"] + hands.rng.randrange(1, 9))
    return Deed(runs=(run,))


async def change_cost(hands: Hands) -> Deed:
    """The cost, the tokens or the steps of the run's row."""
    run = hands.any_run()
    column = hands.rng.choice(("cost_micros", "input_tokens", "output_tokens", "steps"))
    await hands.sql.execute(
        f"UPDATE runs SET {column} = {column} + $3 WHERE tenant_id = $1 AND run_id = $2",  # noqa: S608 - an attacker's own SQL
        *run.ids,
        hands.rng.randrange(1, 1000),
    )
    return Deed(runs=(run,))


async def change_status(hands: Hands) -> Deed:
    """State, model, agent, provider, policy or error of the run's row."""
    run = hands.any_run()
    column, value = hands.rng.choice(
        (
            ("status", "failed"),
            ("status", "blocked"),
            ("model", "claude-opus-4-1"),
            ("agent", "somebody"),
            ("provider", "anthropic"),
            ("policy_digest", "0" * 64),
            ("error_code", "model.timeout"),
            ("kind", "workflow"),
        )
    )
    await hands.sql.execute(
        f"UPDATE runs SET {column} = $3 WHERE tenant_id = $1 AND run_id = $2",  # noqa: S608 - as above
        *run.ids,
        value,
    )
    return Deed(runs=(run,))


async def back_date(hands: Hands) -> Deed:
    """The column `ts` of a record, by up to a day either way."""
    run = hands.any_run()
    row = hands.rng.choice(await hands.records(run))
    away = timedelta(microseconds=hands.rng.randrange(1, 86_400_000_000))
    await hands.set_record(run, row["seq"], ts=row["ts"] + hands.rng.choice((away, -away)))
    return Deed(runs=(run,))


async def back_date_run(hands: Hands) -> Deed:
    """When the run began or ended, in its row."""
    run = hands.any_run()
    column = hands.rng.choice(("created_at", "finished_at"))
    await hands.sql.execute(
        f"UPDATE runs SET {column} = {column} - $3::interval WHERE tenant_id = $1 AND run_id = $2",  # noqa: S608 - as above
        *run.ids,
        timedelta(microseconds=hands.rng.randrange(1, 86_400_000_000)),
    )
    return Deed(runs=(run,))


async def change_header_byte(hands: Hands) -> Deed:
    """One hex digit of a header's nonce or event id: it stays canonical."""
    run = hands.any_run()
    row = hands.rng.choice(await hands.records(run))
    members = header_of(row)
    name = hands.rng.choice(("nonce", "event_id"))
    digits = list(members[name])
    place = hands.rng.randrange(32)
    digits[place] = f"{(int(digits[place], 16) + hands.rng.randrange(1, 16)) % 16:x}"
    members[name] = "".join(digits)
    await hands.set_record(run, row["seq"], header=encode(members))
    return Deed(runs=(run,))


async def change_header_member(hands: Hands) -> Deed:
    """What a header says: who did it, or what came of it."""
    run = hands.any_run()
    row = hands.rng.choice(await hands.records(run))
    members = header_of(row)
    if hands.rng.random() < 0.5:
        members["actor"] = "operator" if members["actor"] != "operator" else "system"
    else:
        members["outcome"] = "deny" if members["outcome"] != "deny" else "allow"
    await hands.set_record(run, row["seq"], header=encode(members))
    return Deed(runs=(run,))


async def reencode(hands: Hands) -> Deed:
    """The same header in other bytes, R and H of the run made to fit."""
    run = hands.any_run()
    rows = await hands.records(run)
    row = hands.rng.choice(rows)
    members = header_of(row)
    backwards = dict(reversed(list(members.items())))
    escaped = row["header"].replace(b'"kind"', b'"\\u006bind"')
    row["header"] = hands.rng.choice(
        (
            json.dumps(members).encode(),
            json.dumps(backwards, separators=(",", ":")).encode(),
            row["header"].replace(b'"v":1', b'"v":1.0'),
            row["header"].replace(b'"v":1', b'"v":1e0'),
            row["header"] + b"\n",
            b"\xef\xbb\xbf" + row["header"],
            escaped,
            row["header"].replace(b'"v":1', b'"v":1,"v":1'),
        )
    )
    if hands.rng.random() < 0.5:
        rehash(run.log, run.run, rows)
    await hands.put_records(run, rows)
    return Deed(runs=(run,))


async def add_field(hands: Hands) -> Deed:
    """A payload row that no header commits to; with the run key, so that it opens."""
    run = hands.any_run()
    key = await hands.run_key(run)
    row = hands.rng.choice(await hands.records(run))
    held = {found["field"] for found in await hands.payloads(run, row["seq"])}
    field = hands.rng.choice([number for number in range(1, 9) if number not in held])
    clear = hands.rng.randbytes(32) + b'{"text":"as agreed on the telephone"}'
    blob = sealed(key, run.log, run.run, row["seq"], field, clear)
    log, run_id = run.ids
    await hands.insert(
        "payload",
        {"tenant_id": log, "run_id": run_id, "seq": row["seq"], "field": field, "blob": blob},
    )
    return Deed(runs=(run,))


async def shift_salt_and_value(hands: Hands) -> Deed:
    """With the run key: the border between salt and value moves; the bytes stay."""
    run = hands.any_run()
    key, row = await hands.run_key(run), await hands.some_payload(run)
    clear = opened(key, row)
    move = hands.rng.randrange(1, 8)
    shifted = hands.rng.choice((clear[move:], clear[: -min(move, len(clear) - 33)], b" " + clear))
    await hands.put_payload(_sealed_again(key, row, shifted))
    return Deed(runs=(run,))


async def shift_between_fields(hands: Hands) -> Deed:
    """With the run key: bytes move from the end of one field to the beginning of the next."""
    run = hands.any_run()
    key = await hands.run_key(run)
    rows = await hands.payloads(run)
    place = hands.rng.randrange(len(rows) - 1)
    one, other = opened(key, rows[place]), opened(key, rows[place + 1])
    move = hands.rng.randrange(1, min(8, len(one) - 32))
    await hands.put_payload(_sealed_again(key, rows[place], one[:-move]))
    moved = other[:32] + one[-move:] + other[32:]
    await hands.put_payload(_sealed_again(key, rows[place + 1], moved))
    return Deed(runs=(run,))


CLASSES = (
    AttackClass(
        number=1,
        title="change a payload byte (first 200 characters, beyond)",
        who="A2",
        named=frozenset({"D3"}),
        acts=(
            ("early", flip_early),
            ("late", flip_late),
            ("sealed again", reseal_value),
            ("kept output", forge_kept_output),
        ),
    ),
    AttackClass(
        number=2,
        title="change a salt; swap input and output; swap blobs between rows",
        who="A2",
        named=frozenset({"D3"}),
        acts=(
            ("salt", flip_salt),
            ("salt, sealed again", reseal_salt),
            ("rows", swap_rows),
            ("rows, sealed again", swap_rows_resealed),
            ("input and output", swap_input_and_output),
            ("two runs", swap_across_runs),
        ),
    ),
    AttackClass(
        number=3,
        title="change an indexed column",
        who="A2",
        named=frozenset({"D2"}),
        acts=(
            ("kind", change_kind),
            ("epoch", change_epoch),
            ("cost", change_cost),
            ("state", change_status),
        ),
    ),
    AttackClass(
        number=4,
        title="back-date a record",
        who="A2",
        named=frozenset({"D2"}),
        acts=(("record", back_date), ("run", back_date_run)),
    ),
    AttackClass(
        number=5,
        title="change a byte of a header",
        who="A2",
        named=frozenset({"D1"}),
        acts=(("nonce", change_header_byte), ("member", change_header_member)),
    ),
    AttackClass(
        number=31,
        title="write a header again in other bytes",
        who="A2",
        named=frozenset({"D1"}),
        acts=(("bytes", reencode),),
    ),
    AttackClass(
        number=32,
        title="add a field that no header commits to",
        who="A2",
        named=frozenset({"D3"}),
        acts=(("field", add_field),),
    ),
    AttackClass(
        number=33,
        title="shift bytes across adjacent fields",
        who="A2",
        named=frozenset({"D3"}),
        acts=(("salt and value", shift_salt_and_value), ("two fields", shift_between_fields)),
    ),
)
