"""The judge: asks only public doors, and says which detector spoke.

A detector is told by the reason that a door gives, so a reason that no rule below knows is `D?`:
an alarm, but by nobody whom the table names.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.tampering.attack import AttackClass, Deed, Outcome, Told, Trial
from bench.tampering.run_ref import RunRef
from bench.tampering.scene import Scene
from bench.tampering.second_reader import SecondReader

Json = dict[str, Any]

# Reasons as the doors give them (seen from outside), most special first.
_REASONS: tuple[tuple[str, str], ...] = (
    (r"^payload '.*' (does not open|differs from its commitment)", "D3"),
    (r"^column '.*' (of the run's row )?(differs from the (header|ledger)|holds no such)", "D2"),
    (r"gone without a recorded erasure|still there although it was erased", "D8"),
    (r"^the log's administration run was cut", "D8"),
    (r"^a payload field was never committed to", "D3"),
    (r"^the kept output is not the one that was released", "D3"),
    (r"^a checkpoint of the log does not hold", "D5"),
    (r"^a record of the operator log about a key does not hold", "D4"),
    (r"that the log holds$|^the log (leaves|ends)|(of|in|beyond the end of) the log(,| |$)", "D4"),
    (r"^a record is missing or out of order", "D1"),
    (r"^the (record|chain) hash does not match", "D1"),
    (r"^the header is malformed", "D1"),
    (r"^the (tip|signature|entries|ranges) of a batch (does|do|are) ", "D7"),
    (r"^a record names another writer than its batch", "D7"),
    (r"^the writer of a batch (is (unknown|not certified)|had been retired)", "D7"),
)
_VOLATILE = ("witnessed_at", "unwitnessed", "state", "size")


def detector_of(reason: str) -> str:
    """Which detector of the design's table gives this reason."""
    for pattern, detector in _REASONS:
        if re.search(pattern, reason):
            return detector
    return "D?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the doors show of one run."""

    run: tuple[int, Json]
    entries: tuple[int, Json]
    verification: tuple[int, Json]

    @property
    def content(self) -> tuple[object, ...]:
        """What a reader learns, without what changes by itself as witnesses see more."""
        own = ("integrity",) if self.run[0] == 200 else ("integrity", "request_id")
        shown = {k: v for k, v in self.run[1].items() if k not in own}
        return self.run[0], shown, self.entries[0], self.entries[1].get("data")

    @property
    def is_valid(self) -> bool:
        """Every door believes it."""
        said = self.verification[1].get("verdict")
        return self.run[0] == self.entries[0] == 200 and said == "valid"

    @property
    def is_lawfully_deleted(self) -> bool:
        """No content anywhere, and a verification that holds."""
        said = self.verification[1].get("verdict")
        return self.run[0] == self.entries[0] == 404 and said == "valid"

    def is_honest(self, run: RunRef) -> bool:
        """As an honest run of this kind reads."""
        return self.is_lawfully_deleted if run.erased == "deleted" else self.is_valid

    @property
    def is_broken(self) -> bool:
        """Every door refuses it: a named break, and no content from any."""
        codes = {self.run[1].get("code"), self.entries[1].get("code")}
        said = self.verification[1].get("verdict")
        return codes <= {"ledger-broken", "not-found"} and said == "broken"

    def refuses_the_output_alone(self, before: "Answer | None") -> bool:
        """What was kept beside the ledger is refused; the ledger itself is shown as it was."""
        said = self.verification[1].get("verdict")
        is_as_before = before is not None and self.entries == before.entries
        return self.run[1].get("code") == "ledger-broken" and said == "broken" and is_as_before

    @property
    def is_gone(self) -> bool:
        """As if there had never been such a run."""
        return self.run[0] == self.entries[0] == self.verification[0] == 404


class Judge:
    """Reads runs through HTTP and compares with what it read before any attack."""

    def __init__(
        self,
        scene: Scene,
        before: Mapping[RunRef, Answer] | None = None,
        second: SecondReader | None = None,
    ) -> None:
        self._scene = scene
        self._clients = {run.tenant: scene.client(run.tenant) for run in scene.runs}
        self.before: dict[RunRef, Answer] = dict(before or {})
        self.second = second or SecondReader(scene)

    async def close(self) -> None:
        """Hang up."""
        for client in self._clients.values():
            await client.aclose()

    async def read(self, run: RunRef) -> Answer:
        """Ask all doors for one run."""
        http, path = self._clients[run.tenant], f"/v1/runs/{run.public}"
        answers = []
        for place in ("", "/entries?limit=200", "/verification"):
            got = await http.get(path + place)
            answers.append((got.status_code, got.json()))
        return Answer(run=answers[0], entries=answers[1], verification=answers[2])

    async def glance(self, run: RunRef) -> bool:
        """Whether the run and its entries read as before; the verification is not asked for."""
        http, path = self._clients[run.tenant], f"/v1/runs/{run.public}"
        told = [await http.get(path + place) for place in ("", "/entries?limit=200")]
        found = [(answer.status_code, answer.json()) for answer in told]
        before = self.before[run]
        now = Answer(run=found[0], entries=found[1], verification=before.verification)
        return now.content == before.content

    async def remember(self, runs: Iterable[RunRef]) -> None:
        """Read what is honest; everything must be valid. These are clean controls too."""
        for run in runs:
            answer = await self.read(run)
            assert answer.is_honest(run), (run, answer.run, answer.verification)
            self.before[run] = answer
            await self.second.remember(run)

    async def false_alarms(self, runs: Iterable[RunRef]) -> list[str]:
        """Clean reads that are not valid or not what was read before."""
        wrong = []
        for run in runs:
            now = await self.read(run)
            if not now.is_honest(run) or now.content != self.before[run].content:
                wrong.append(f"{run.public}: {now.run[0]} {now.verification[1].get('break')}")
        return wrong

    async def judged(self, of: AttackClass, act: str, deed: Deed) -> Trial:
        """The outcome of one deed."""
        where = " ".join(run.public for run in deed.runs)
        if deed.refused is not None:
            told = [Told(detector="D11", reason=deed.refused)]
            return Trial(
                number=of.number,
                act=act,
                outcome=Outcome.PREVENTED,
                told=tuple(told),
                where=where,
                layers=frozenset({"D11"}),
            )
        told = [Told(detector=sign, reason="") for sign in deed.signs]
        silent = deed.quiet is not None
        layers = set(deed.signs)
        for run in deed.runs:
            layers |= await self.second.layers(run)
            found = self._said(await self.read(run), self.before.get(run), kept=deed.kept)
            silent = silent or not found
            told += found
        outcome = Outcome.ELSEWHERE
        if silent or not told:
            outcome = Outcome.UNDETECTED
        elif all(one.detector in of.named | of.also.get(act, frozenset()) for one in told):
            outcome = Outcome.DETECTED
        layers |= {one.detector for one in told}
        return Trial(
            number=of.number,
            act=act,
            outcome=outcome,
            told=tuple(told),
            where=where,
            layers=frozenset(layers),
        )

    def _said(self, now: Answer, before: Answer | None, *, kept: bool) -> list[Told]:
        if now.is_broken or now.refuses_the_output_alone(before):
            reason = str(now.verification[1]["break"]["reason"])
            return [Told(detector=detector_of(reason), reason=reason)]
        if kept and before is not None and (lost := _receipts_lost(now, before)):
            return [Told(detector="D9", reason=lost)]
        return []


def _receipts_lost(now: Answer, before: Answer) -> str | None:
    """What a client finds that kept `chain_hash` of every entry it was shown."""
    held: Mapping[int, str] = {e["seq"]: e["chain_hash"] for e in before.entries[1]["data"]}
    shown = {e["seq"]: e["chain_hash"] for e in now.entries[1].get("data", [])}
    for seq, chain in held.items():
        if shown.get(seq) != chain:
            return f"receipt of seq {seq} does not hold"
    return None
