"""Whole export bundles for the vectors: a small deployment, its keys, its logs, and section 13."""

import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from scripts.vector_keys import (
    FIRST,
    KEYS,
    MOMENT,
    OPERATOR,
    OPERATOR_ADMIN,
    OPERATOR_ORIGIN,
    ORIGIN,
    OTHER,
    RUN,
    SECOND,
    TENANT,
    TENANT_ADMIN,
    THIRD,
    WITNESSES,
    WRITERS,
    certificate,
    rotation,
    statement,
    statement_note,
)
from scripts.vector_parts import (
    NUMBERS,
    Json,
    JsonObject,
    Log,
    Made,
    Run,
    b64,
    canonical,
    checkpoint_text,
    fixed,
    inclusion,
    lines,
    mth,
    t,
    u64,
)

Members = dict[str, bytes]

NAMES = (
    "manifest.json",
    "records.jsonl",
    "payloads.jsonl",
    "batches.jsonl",
    "writers.jsonl",
    "checkpoint.note",
    "anchor.json",
    "operator.note",
    "administration.jsonl",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What happened before the export."""

    sequenced: int = 5  # of the run's five records
    shared: bool = False  # the first batch holds records of other runs too
    erase: str | None = None
    erased_by: str = "erasure"
    rotated: tuple[str, ...] = ()
    rotated_at: int | None = None  # size of the tenant's log; None: before the second batch
    retired_at: int | None = None  # the first writer, at this size of the tenant's log
    retires: bytes = FIRST
    second_certificate: str = "enrolment"
    tenant_log_key: str = "log"
    operator_log_key: str = "log"
    checkpointed: bool = True
    cosigned_by: tuple[str, ...] = ("w0.example", "w2.example")
    recovery: str = ""  # what follows the origins
    erase_first: bool = False  # the erasure record comes before the second batch
    forged: tuple[tuple[int, str], ...] = ()  # records of the run that do not fit, by seq
    backwards: bool = False  # the second batch stands in the log the wrong way round
    origin: str = ORIGIN
    operator_origin: str = OPERATOR_ORIGIN
    anchor_kind: str = "checkpoint.tenant"
    anchored: bool = True
    anchored_note: str | None = None  # another note than the checkpoint's
    erase_kind: str = "erasure."  # what the erasure record's kind begins with
    offices: int = 1  # administration runs of the operator
    is_lagging: bool = False  # a record more before its anchor
    is_opened: bool = True  # the operator's begins as it must
    is_forked: bool = False  # its anchor is a second record at the seq of the one before
    anchor_index: int | None = None  # where in the operator log the anchor stands
    stated_size: int = 4  # of the checkpoint that a statement names
    stated_key: str | None = None  # who signed that; None: whose turn it was
    signed_too: str | None = None  # a second log key under the checkpoint
    forge: Callable[[JsonObject], JsonObject] | None = None  # what a forger makes of the statement


@dataclass(slots=True, kw_only=True)
class Deployment:
    """Logs and runs as the plan leaves them, and what the bundle says of them."""

    plan: Plan
    tenant: Log = field(default_factory=lambda: Log(log=TENANT))
    operator: Log = field(default_factory=lambda: Log(log=OPERATOR))
    run: Run = field(default_factory=lambda: Run(log=TENANT, run=RUN))
    admin: Run = field(default_factory=lambda: Run(log=TENANT, run=TENANT_ADMIN))
    office: Run = field(default_factory=lambda: Run(log=OPERATOR, run=OPERATOR_ADMIN))
    batches: list[tuple[bytes, list[tuple[Run, Made]]]] = field(default_factory=list)
    gone: dict[int, list[str]] = field(default_factory=dict)
    told: list[tuple[Log, Run, Made]] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)  # at which keys were changed

    def write(self) -> None:
        """The tenant's log: two batches, and what erases."""
        self.run.forged = dict(self.plan.forged)
        self.tenant.add(self.admin.note("admin.opened", {}, FIRST))
        first = self._first_batch()
        second = [
            self.run.add("tool.finished", {"result": b'{"text":"42"}'}, SECOND, intent=1),
            self.run.add("model.replied", {"reply": '"zweiundvierzig \u00b7"'.encode()}, SECOND),
            self.run.add("run.finished", {"output": b'"42"', "note": b'"done"'}, SECOND),
        ]
        self.batches = [(FIRST, first), (SECOND, [(self.run, made) for made in second])]
        self.tenant.add(*(made for _, made in first))
        before = len(self.tenant.entries)
        if self.plan.erase_first:
            self._erase(self.plan.erase or "")
        self.tenant.add(*(reversed(second) if self.plan.backwards else second))
        if self.plan.rotated or self.plan.retired_at is not None:
            at = self.plan.rotated_at
            self._change_keys(before if at is None else at)
        for action in (self.plan.erase or "").split() if not self.plan.erase_first else ():
            self._erase(action)

    def _first_batch(self) -> list[tuple[Run, Made]]:
        other, third = Run(log=TENANT, run=OTHER), Run(log=TENANT, run=THIRD)
        mine = [
            (self.run, self.run.add("run.submitted", {"task": b'"What is 6*7?"'}, FIRST)),
            (self.run, self.run.add("tool.decided", {"call": b'{"text":"6*7"}'}, FIRST)),
        ]
        if not self.plan.shared:
            return mine
        before = [(other, other.add("run.submitted", {"task": b'"x"'}, FIRST)) for _ in range(3)]
        return [*before, *mine, (third, third.add("run.submitted", {"task": b'"y"'}, FIRST))]

    def _erase(self, action: str) -> None:
        records = self.run.records
        gone = {0: ["task"], 4: ["output"]}
        if action == "delete_run":
            gone = {made.seq: sorted(made.fields) for made in records}
        self.gone |= gone
        said = statement(action, records, gone, self._stated())
        said = said if self.plan.forge is None else self.plan.forge(said)
        signed = statement_note(said, self.plan.erased_by)
        made = self.admin.note(f"{self.plan.erase_kind}{action}", signed, SECOND)
        self.tenant.add(made)
        self.told.append((self.tenant, self.admin, made))

    def _stated(self) -> str:
        """The checkpoint that a statement names, by the key that signed logs of that size."""
        size = self.plan.stated_size
        text = checkpoint_text(ORIGIN, size, self.tenant.root(size))
        key = self.plan.stated_key
        if key is None:
            is_rotated = "log" in self.plan.rotated and size > self.sizes.get(TENANT.hex(), 0)
            key = "new log" if is_rotated else "log"
        return text + "\n" + KEYS[key].line(ORIGIN, text)

    def _change_keys(self, at: int) -> None:
        self._open_office()
        self.sizes[TENANT.hex()] = at
        for role in self.plan.rotated:
            sizes = {TENANT.hex(): at, OPERATOR.hex(): len(self.operator.entries)}
            made = self.office.note("key.rotated", rotation(role, sizes), SECOND)
            self.operator.add(made)
            self.told.append((self.operator, self.office, made))
        if self.plan.retired_at is not None:
            note: JsonObject = {
                "writer_id": self.plan.retires.hex(),
                "sizes": {TENANT.hex(): self.plan.retired_at},
            }
            made = self.office.note("key.retired", note, SECOND)
            self.operator.add(made)
            self.told.append((self.operator, self.office, made))

    def _open_office(self) -> None:
        if not self.office.records and self.plan.is_opened:
            self.operator.add(self.office.note("admin.opened", {}, SECOND))

    def size(self) -> int:
        """How much of the tenant's log the checkpoint covers."""
        if self.plan.sequenced == len(self.run.records):
            return len(self.tenant.entries)
        first_unseen = self.run.records[self.plan.sequenced]
        return self.tenant.entries.index(first_unseen.leaf)

    def members(self) -> Members:
        """All members of the bundle."""
        plan, size = self.plan, self.size()
        note = b""
        if plan.checkpointed:
            signed = self._note(plan.origin, size, self.tenant.root(size), plan.tenant_log_key)
            if plan.signed_too is not None:
                text = signed.partition("\n\n")[0] + "\n"
                signed += KEYS[plan.signed_too].line(plan.origin + plan.recovery, text)
            note = signed.encode()
        anchor, operator = self._anchor(note)
        made: Members = {
            "records.jsonl": self._records(size if plan.checkpointed else 0),
            "payloads.jsonl": self._payloads(),
            "batches.jsonl": self._batches(),
            "writers.jsonl": lines(
                {
                    "writer_id": writer.hex(),
                    "public_key": b64(WRITERS[writer].public),
                    "certificate": b64(certificate(writer, by)),
                }
                for writer, by in ((FIRST, "enrolment"), (SECOND, plan.second_certificate))
            ),
            "checkpoint.note": note,
            "anchor.json": anchor,
            "operator.note": operator,
            "administration.jsonl": lines(
                log.entry_proof(run, record, size if log is self.tenant else len(log.entries))
                for log, run, record in self.told
            ),
        }
        return with_manifest(made)

    def _note(self, origin: str, size: int, root: bytes, key: str) -> str:
        named = origin + self.plan.recovery
        text = checkpoint_text(named, size, root)
        return text + "\n" + KEYS[key].line(named, text)

    def _anchor(self, note: bytes) -> tuple[bytes, bytes]:
        plan = self.plan
        if not (plan.anchored and plan.checkpointed):
            return b"null\n", b""
        if plan.offices > 1:
            self.office = Run(log=OPERATOR, run=OTHER)
        if plan.is_forked:
            self.office.records.pop()
        self._open_office()
        if plan.is_lagging:
            self.operator.add(self.office.note("log.started", {}, SECOND))
        said: JsonObject = {"checkpoint": plan.anchored_note or note.decode()}
        made = self.office.note(plan.anchor_kind, said, SECOND)
        at = plan.anchor_index
        self.operator.entries.insert(len(self.operator.entries) if at is None else at, made.leaf)
        size = len(self.operator.entries)
        signed = self._note(
            plan.operator_origin, size, self.operator.root(size), self.plan.operator_log_key
        )
        text = signed.partition("\n\n")[0] + "\n"
        for number, name in enumerate(self.plan.cosigned_by):
            signed += WITNESSES[name].cosignature(name, text, MOMENT + number)
        proof = self.operator.entry_proof(self.office, made, size)
        return canonical(proof) + b"\n", signed.encode()

    def _records(self, size: int) -> bytes:
        rows: list[JsonObject] = []
        ids = {
            made.seq: batch_id(n)
            for n, (_, batch) in enumerate(self.batches)
            for run, made in batch
            if run is self.run
        }
        for made in self.run.records:
            placed = self.tenant.proof(made, size) if size else None
            row: JsonObject = {
                "seq": made.seq,
                "rc": made.rc.hex(),
                "chain": made.chain.hex(),
                "batch_id": ids[made.seq].hex(),
                "index": None if placed is None else placed[0],
                "proof": None if placed is None else [b64(item) for item in placed[1]],
            }
            row |= {name: made.members[name] for name in ("epoch", "kind", "ts")}
            row["header"] = b64(made.header)
            if "delete_run" in (self.plan.erase or ""):
                row |= dict.fromkeys(("epoch", "kind", "ts", "header"))
            rows.append(row)
        return lines(rows)

    def _payloads(self) -> bytes:
        rows = [
            (made.seq, NUMBERS[name], salt, value)
            for made in self.run.records
            for name, (salt, value) in made.fields.items()
            if name not in self.gone.get(made.seq, [])
        ]
        return lines(
            {"seq": seq, "field": number, "salt": b64(salt), "value": b64(value)}
            for seq, number, salt, value in sorted(rows)
        )

    def _batches(self) -> bytes:
        rows: list[JsonObject] = []
        for number, (writer, batch) in enumerate(self.batches):
            entries = [run.run + u64(made.seq) + made.chain for run, made in batch]
            tip = mth(entries)
            message = t("batch") + TENANT + batch_id(number)
            message += len(entries).to_bytes(4, "big") + tip
            paths: list[Json] = [
                {"index": place, "proof": [b64(item) for item in inclusion(place, entries)]}
                for place, (run, _) in enumerate(batch)
                if run is self.run
            ]
            rows.append(
                {
                    "batch_id": batch_id(number).hex(),
                    "writer_id": writer.hex(),
                    "n": len(entries),
                    "ranges": b64(ranges(batch)),
                    "tip": tip.hex(),
                    "sig": b64(WRITERS[writer].sign(message)),
                    "entries": paths if len(paths) != len(entries) else None,
                }
            )
        return lines(rows)


def batch_id(number: int) -> bytes:
    """The id of a batch."""
    return fixed(f"batch {number}", 16)


def ranges(batch: Sequence[tuple[Run, Made]]) -> bytes:
    """Section 7: for each run in order, run, first seq, last seq."""
    by_run: dict[bytes, list[int]] = {}
    for run, made in batch:
        by_run.setdefault(run.run, []).append(made.seq)
    return b"".join(run + u64(seqs[0]) + u64(seqs[-1]) for run, seqs in by_run.items())


def with_manifest(members: Mapping[str, bytes]) -> Members:
    """The same members under a manifest that fits them."""
    files: JsonObject = {
        name: sha256(members[name]).hexdigest() for name in NAMES if name != NAMES[0]
    }
    manifest: JsonObject = {
        "format": "meshflow-bundle/v1",
        "log": TENANT.hex(),
        "run": RUN.hex(),
        "files": files,
    }
    made = {NAMES[0]: canonical(manifest) + b"\n"}
    return made | {name: members[name] for name in NAMES[1:]}


def bundle(plan: Plan) -> Members:
    """The bundle that a plan leads to."""
    deployment = Deployment(plan=plan)
    deployment.write()
    return deployment.members()


def tar_of(members: Mapping[str, bytes]) -> bytes:
    """Section 13: a ustar archive, times and owners zero, mode 0644."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
