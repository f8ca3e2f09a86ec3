// An export bundle against a policy (docs/ledger-format.md sections 8 to 13).
import { checkOneRun, checkRotation, claimOf, Keys, openEntry, openStatement, retiredAt } from "./administration.mjs";
import { batchEntry, batchMessage, hashLeaf, included, leafData, signed, tag, treeRoot } from "./hashes.mjs";
import { must, Refused, utf8 } from "./json.mjs";
import { checkpointOf, ED25519, keyOf, ledgerOf, parseNote, signersOf } from "./notes.mjs";
import { ChainWalk, checkPayload } from "./records.mjs";
import { jsonLines, oneJson, openBatches, openManifest, openPayloads, openRecords, openWriters } from "./rows.mjs";
import { readTar, Unusable } from "./tar.mjs";

const ERASURES = ["erasure.anonymize_run", "erasure.delete_run"];
const KEY_RECORDS = ["key.retired", "key.rotated"];

// One bundle being checked. What cannot be checked goes into `open`; what does not hold is Refused.
class Check {
  constructor(members, policy) {
    Object.assign(this, { members, policy, open: new Set(), place: openManifest(members) });
    if (policy === null) this.open.add("no policy");
  }

  // Section 8 as far as the run alone goes.
  run() {
    const { log, run } = this.place;
    this.records = openRecords(this.members.get("records.jsonl"));
    must(this.records.length > 0, "a run without records");
    const walk = new ChainWalk(log, run);
    this.headers = this.records.map((record) => walk.next(record));
    this.payloads = new Set(openPayloads(this.members.get("payloads.jsonl")).map(
      (row) => `${row.seq}/${checkPayload(log, run, this.headers[row.seq] ?? null, row)}`));
    const last = this.headers[this.headers.length - 1];
    if (last !== null && last.kind !== "run.finished") this.open.add("the run has not ended");
  }

  // Rotations help to open the notes that prove them: they hold by their two signatures, the proofs come after.
  claimed() {
    this.claims = jsonLines(this.members.get("administration.jsonl")).map(claimOf);
    const rotations = this.claims.filter(({ kind }) => kind === "key.rotated").map(({ note }) => note);
    rotations.forEach(checkRotation);
    this.keys = Object.fromEntries(["log", "enrolment", "erasure"].map((role) => [role, new Keys(role, rotations)]));
  }

  openNote(name) {
    const data = this.members.get(name);
    if (data.length === 0) return null;
    const note = parseNote(data);
    const checkpoint = { note, ...checkpointOf(note) };
    if (this.policy !== null) this.checkSigned(checkpoint);
    return checkpoint;
  }

  // Of the deployment of a pinned log, by a key that is pinned there or tied to a pinned one (section 11).
  checkSigned({ note, origin, size, ledger }) {
    const pinned = this.policy.logs.filter((key) => ledgerOf(key.name)?.deployment === ledger.deployment);
    const tied = this.keys.log.tied(pinned.map((key) => key.publicKey));
    const keys = [...tied].map((key) => keyOf(origin, ED25519, Buffer.from(key, "hex")));
    const signers = [...signersOf(note, keys).keys()].map((key) => key.publicKey.toString("hex"));
    must(signers.length > 0, "a checkpoint that no key of its log signed");
    const count = signers.every((key) => this.keys.log.signsCheckpoint(key, ledger.log, size));
    must(count, "a checkpoint that a key signed which does not count at its size");
  }

  trees() {
    this.tree = this.openNote("checkpoint.note");
    must(this.tree === null || this.tree.ledger.log === this.place.logHex, "a checkpoint of another log");
    this.operator = this.openNote("operator.note");
    const places = [this.tree, this.operator].filter((one) => one !== null);
    must(new Set(places.map(({ ledger }) => ledger.deployment)).size <= 1, "checkpoints of two deployments");
    if (this.operator === null || this.policy === null) return;
    must(this.policy.logs.some(({ name }) => name === this.operator.origin), "an operator log that nobody pinned");
  }

  openUnder(tree, entry) {
    must(tree !== null, "an entry proof without its checkpoint");
    const opened = openEntry(entry, tree);
    must(opened.log === tree.ledger.log, "an entry proof of another log");
    return opened;
  }

  // Every entry proof under its checkpoint; gives the erasures and the retirements.
  administration() {
    const anchor = oneJson(this.members.get("anchor.json"));
    must(anchor === null || this.tree !== null, "an anchor of no checkpoint");
    this.anchor = anchor === null ? null : this.openUnder(this.operator, anchor);
    const opened = this.claims.map(({ entry, kind }) => {
      must([...ERASURES, ...KEY_RECORDS].includes(kind), "an entry proof that nobody asked for");
      return this.openUnder(ERASURES.includes(kind) ? this.tree : this.operator, entry);
    });
    const entries = this.anchor === null ? opened : [...opened, this.anchor];
    for (const log of new Set(entries.map((entry) => entry.log))) {
      checkOneRun(entries.filter((entry) => entry.log === log));
    }
    this.erasures = opened.filter(({ kind }) => ERASURES.includes(kind));
    this.retired = opened.filter(({ kind }) => kind === "key.retired").map(({ note }) => note);
  }

  // Section 9: a prefix of the run has places, in its order.
  places() {
    let last = -1;
    let placed = 0;
    for (const record of this.records) {
      if (record.index === null) continue;
      must(this.tree !== null && placed === record.seq && record.index > last, `record ${record.seq}: out of order`);
      const leaf = hashLeaf(leafData(this.place.log, this.place.run, record.seq, record.chain));
      const holds = included(leaf, record.index, this.tree.size, record.path, this.tree.root);
      must(holds, `record ${record.seq}: not in the tree`);
      [last, placed] = [record.index, placed + 1];
    }
    if (placed < this.records.length) this.open.add("records without a place");
    return placed;
  }

  // Where a record counts as standing (section 11).
  standsAt = (record) => record.index ?? this.tree?.size ?? 0;

  // Section 12: what is gone was lawfully taken away, and what was taken away is gone.
  erased() {
    const [fields, deleted] = [new Set(), new Set()];
    for (const { kind, index, note } of this.erasures) {
      const statement = openStatement(note);
      this.checkErasureKey(note.key, index);
      must(kind === `erasure.${statement.action}`, "an erasure of another kind");
      must(statement.log === this.place.logHex && statement.run === this.place.runHex, "an erasure of another run");
      must((statement.stated?.size ?? 0) <= index, "a statement with a checkpoint of later");
      if (statement.stated !== null && this.policy !== null) this.checkSigned(statement.stated);
      const whole = statement.action !== "delete_run" || statement.items.length === this.records.length;
      must(whole, "a deletion that does not name every record");
      for (const item of statement.items) {
        this.checkItem(item, index);
        for (const name of item.fields) fields.add(`${item.seq}/${name}`);
        if (statement.action === "delete_run") deleted.add(item.seq);
      }
    }
    this.checkGone(fields, deleted);
    this.deleted = deleted.size > 0;
  }

  checkItem(item, index) {
    const record = this.records[item.seq];
    const same = record !== undefined && record.rcHex === item.rc && record.chainHex === item.chain;
    must(same, `record ${item.seq}: not the record that was erased`);
    must(record.index !== null && record.index < index, `record ${item.seq}: erased before it was there`);
    const commit = this.headers[item.seq]?.commit ?? null;
    const were = commit === null || item.fields.every((name) => name in commit);
    must(were, `record ${item.seq}: a field was erased that never was`);
  }

  checkErasureKey(key, index) {
    const pinned = this.policy?.erasure ?? [];
    if (pinned.length === 0) {
      this.open.add("no erasure key");
      return;
    }
    const trusted = this.keys.erasure.tied(pinned.map((one) => one.publicKey)).has(key);
    must(trusted && this.keys.erasure.countsAt(key, this.place.logHex, index), "an erasure by a key that does not count");
  }

  checkGone(fields, deleted) {
    const held = this.headers.flatMap((header) => Object.keys(header?.commit ?? {})).length;
    const withheld = this.payloads.size === 0 && held > fields.size;
    if (withheld) this.open.add("the contents are withheld");
    this.records.forEach(({ seq, header }) => {
      must((header === null) === deleted.has(seq), `record ${seq}: its header is gone, or back`);
      for (const name of Object.keys(this.headers[seq]?.commit ?? {})) {
        const there = this.payloads.has(`${seq}/${name}`);
        must(withheld || there !== fields.has(`${seq}/${name}`), `record ${seq}: ${name} is ${there ? "back" : "gone"}`);
      }
    });
  }

  // Sections 5 and 11: every record is in a signed batch, and its writer was certified and had not retired.
  batches() {
    const batches = openBatches(this.members.get("batches.jsonl"));
    const writers = openWriters(this.members.get("writers.jsonl"));
    const rows = new Map();
    for (const record of this.records) rows.set(record.batchId, [...(rows.get(record.batchId) ?? []), record]);
    const used = new Set();
    for (const [name, records] of rows) {
      const batch = batches.get(name);
      const writer = writers.get(batch?.writerId);
      must(writer !== undefined, `record ${records[0].seq}: its batch or its writer is missing`);
      this.checkBatch(batch, records, writer);
      this.checkWriter(writer, records);
      used.add(writer.name);
    }
    must(rows.size === batches.size && used.size === writers.size, "a batch or a writer of nothing here");
    if ((this.policy?.enrolment ?? []).length === 0) this.open.add("no enrolment key");
  }

  checkBatch(batch, records, writer) {
    const { first, last, before } = batch.ranges.get(this.place.runHex) ?? {};
    const whole = records[0].seq === first && records.length === last - first + 1;
    must(whole, `record ${records[0].seq}: its batch holds other records of this run`);
    const message = batchMessage(this.place.log, batch.id, batch.n, batch.tip);
    must(signed(writer.publicKey, batch.signature, message), `record ${first}: the signature of its batch`);
    const leaves = records.map(({ seq, chain }) => hashLeaf(batchEntry(this.place.run, seq, chain)));
    if (batch.ranges.size === 1) {
      must(batch.entries === null && treeRoot(leaves).equals(batch.tip), `record ${first}: not what its batch signed`);
      return;
    }
    must(batch.entries?.length === records.length, `record ${first}: no paths in its batch`);
    batch.entries.forEach(({ index, path }, at) => {
      const holds = index === before + at && included(leaves[at], index, batch.n, path, batch.tip);
      must(holds, `record ${first + at}: not at its place in its batch`);
    });
  }

  checkWriter(writer, records) {
    const message = Buffer.concat([tag("writer"), writer.id, writer.publicKey]);
    const pinned = this.policy?.enrolment ?? [];
    const trusted = [...this.keys.enrolment.tied(pinned.map((key) => key.publicKey))];
    const by = trusted.filter((key) => signed(Buffer.from(key, "hex"), writer.certificate, message));
    must(pinned.length === 0 || by.length > 0, "a writer without a certificate");
    for (const record of records) {
      const at = this.standsAt(record);
      const header = this.headers[record.seq];
      must(header === null || header.writer === writer.name, `record ${record.seq}: another writer`);
      const counts = by.some((key) => this.keys.enrolment.countsAt(key, this.place.logHex, at));
      must(pinned.length === 0 || counts, `record ${record.seq}: certified by a key that no longer counted`);
      const retired = this.retired.some((note) => retiredAt(note, writer.name, this.place.logHex, at));
      must(!retired, `record ${record.seq}: its writer had retired`);
    }
  }

  // Section 10. The earliest time by which the quorum was made up, or null.
  witnessedAt(now) {
    if (this.anchor === null) return null;
    must(this.anchor.kind === "checkpoint.tenant", "an anchor that is no checkpoint");
    const same = this.anchor.note.checkpoint === utf8(this.members.get("checkpoint.note"));
    must(same, "an anchor of another checkpoint");
    return this.quorumAt(now);
  }

  quorumAt(now) {
    if (this.operator === null || this.policy === null) return null;
    const times = [...signersOf(this.operator.note, this.policy.witnesses)].filter(([, time]) => time <= (now ?? Infinity));
    if (this.policy.asksNobody) return null;
    const reached = times.map(([, time]) => time).sort((a, b) => a - b);
    const madeUp = (at) => this.policy.quorum(new Set(times.filter(([, time]) => time <= at).map(([key]) => key)));
    return reached.find(madeUp) ?? null;
  }
}

// `open` tells what is missing for a 0.
function verifyBundle(data, policy, { now = null, maxAgeSeconds = null } = {}) {
  const check = new Check(readTar(data), policy);
  check.run();
  check.claimed();
  check.trees();
  check.administration();
  const placed = check.places();
  check.erased();
  check.batches();
  const witnessedAt = check.witnessedAt(now);
  if (check.anchor === null) check.quorumAt(now); // a known witness's line that does not hold breaks the note
  if (witnessedAt === null) check.open.add("not witnessed");
  else if (maxAgeSeconds !== null && now - witnessedAt > maxAgeSeconds) check.open.add("witnessed too long ago");
  return { records: check.records.length, placed, witnessedAt, deleted: check.deleted, open: [...check.open] };
}

// Whatever is wrong with what is inside a bundle is 3, also what this program did not expect to meet.
export function answer(data, policy, times) {
  try {
    const found = verifyBundle(data, policy, times);
    const told = `${found.records} records, ${found.placed} of them in the tree, witnessed at ${found.witnessedAt}${found.deleted ? ", the run erased" : ""}`;
    return { code: found.open.length === 0 ? 0 : 2, told: [told, ...found.open].join("\n"), crashed: false };
  } catch (error) {
    if (error instanceof Unusable) return { code: 4, told: error.message, crashed: false };
    return { code: 3, told: error.message, crashed: !(error instanceof Refused) };
  }
}
