// Entry proofs, keys with their limits, and erasure statements (docs/ledger-format.md sections 10 to 12).
import { chainHash, commitment, genesis, hashLeaf, included, leafData, recordHash, signed, tag } from "./hashes.mjs";
import {
  ACTOR, base64, canonical, count, exactly, hex, hexOf, listOf, mapOf, maybe, moment, must, object, parsed, sameNames,
  string, text, utf8, VALUES,
} from "./json.mjs";
import { checkpointOf, parseNote } from "./notes.mjs";
import { bitLength, fieldName, parseHeader } from "./records.mjs";

const SIZES = mapOf((name) => /^[0-9a-f]{32}$/.test(name), count);
const NOTES = {
  "checkpoint.tenant": exactly({ checkpoint: string }),
  "key.retired": exactly({ writer_id: hexOf(16), sizes: SIZES }),
  "key.rotated": exactly({
    role: text(/^(log|erasure|enrolment)$/), old: hexOf(32), new: hexOf(32), sizes: SIZES,
    old_signature: hexOf(64), new_signature: hexOf(64),
  }),
};
const ERASURE = exactly({ statement: string, signature: hexOf(64), key: hexOf(32) });
for (const action of ["anonymize_run", "delete_run", "delete_tenant"]) NOTES[`erasure.${action}`] = ERASURE;

export function checkNote(kind, note) {
  must(NOTES[kind] === undefined || NOTES[kind](note), `a note that is none of ${kind}`);
}

const ENTRY = exactly({
  log: hexOf(16), run: hexOf(16), seq: count, index: count, size: count, header: string, previous: hexOf(32),
  field: (value) => value === 8, salt: hexOf(32), value: string, proof: listOf(string),
});

// What an entry claims to be, before anything of it is proved.
export function claimOf(entry) {
  must(ENTRY(entry), "no entry proof");
  return { entry, kind: parseHeader(base64(entry.header)).kind, note: parsed(utf8(base64(entry.value))) };
}

// Section 10, from the inside out: value, header, chain, leaf, path.
export function openEntry(entry, { size, root }) {
  must(ENTRY(entry) && entry.size === size, "no entry proof, or of another tree");
  const [log, run, previous] = [hex(entry.log), hex(entry.run), hex(entry.previous)];
  const [bytes, value] = [base64(entry.header), base64(entry.value)];
  const header = parseHeader(bytes);
  must(header.log === entry.log && header.run === entry.run && header.seq === entry.seq, "an entry of another place");
  must(sameNames(header.commit, { note: 0 }), "an entry with other fields than its note");
  const made = commitment(log, run, entry.seq, "note", hex(entry.salt), value).toString("hex");
  must(header.commit.note === made, "a note that is not what its commitment says");
  must(header.size.note === bitLength(value.length), "a note of another size than its header says");
  must(entry.seq > 0 || previous.equals(genesis(log, run)), "a first record that follows another");
  const leaf = hashLeaf(leafData(log, run, entry.seq, chainHash(previous, entry.seq, recordHash(bytes))));
  const path = entry.proof.map((hash) => base64(hash, 32));
  must(included(leaf, entry.index, size, path, root), "an entry that is not in the tree");
  const note = parsed(utf8(value));
  must(object(note), "a note that is no object");
  checkNote(header.kind, note);
  return { kind: header.kind, log: entry.log, run: entry.run, seq: entry.seq, index: entry.index, note };
}

// Entries of one log are of one run, no two of one record, and stand in the log in the order of seq with room for the rest.
export function checkOneRun(entries) {
  const sorted = [...entries].sort((a, b) => a.seq - b.seq);
  sorted.forEach((entry, at) => {
    must(entry.run === sorted[0].run, "entries of two administration runs in one log");
    must(entry.index >= entry.seq, "an entry before the first place of the log");
    must(entry.seq > 0 || entry.kind === "admin.opened", "an administration run that something else began");
    if (at === 0) return;
    const before = sorted[at - 1];
    const [records, places] = [entry.seq - before.seq, entry.index - before.index];
    must(records > 0 && places >= records, "two entries of one record, or entries out of order");
  });
}

export function checkRotation(note) {
  checkNote("key.rotated", note);
  must(note.old !== note.new, "a rotation of a key into itself");
  const told = canonical({ new: note.new, old: note.old, role: note.role, sizes: note.sizes });
  const message = Buffer.concat([tag("rotate"), Buffer.from(told)]);
  must(signed(hex(note.old), hex(note.old_signature), message), "a rotation that the old key did not sign");
  must(signed(hex(note.new), hex(note.new_signature), message), "a rotation that the new key did not sign");
}

// The keys of one role and the rotations between them: who is tied to whom, and for what a key counts.
export class Keys {
  constructor(role, rotations) {
    const ours = rotations.filter((note) => note.role === role);
    this.after = new Map(ours.map((note) => [note.old, note]));
    this.before = new Map(ours.map((note) => [note.new, note]));
    const once = this.after.size === ours.length && this.before.size === ours.length;
    must(once, `a key with two successors or two predecessors (${role})`);
  }

  // The keys (hex) tied to these by rotations, those themselves included.
  tied(publicKeys) {
    const found = new Set(publicKeys.map((key) => key.toString("hex")));
    for (const key of found) {
      if (this.after.has(key)) found.add(this.after.get(key).new);
      if (this.before.has(key)) found.add(this.before.get(key).old);
    }
    return found;
  }

  // The size up to which a rotated key counts in a log, or no limit; and the one from which a new one does.
  limit = (key, log) => (this.after.has(key) ? this.after.get(key).sizes[log] ?? 0 : Infinity);
  signsCheckpoint = (key, log, size) =>
    size <= this.limit(key, log) && (!this.before.has(key) || size > (this.before.get(key).sizes[log] ?? 0));
  countsAt = (key, log, index) => index < this.limit(key, log);
}

export const retiredAt = (note, writerId, log, index) => note.writer_id === writerId && index >= (note.sizes[log] ?? 0);

const ITEM = exactly({ seq: count, rc: hexOf(32), chain: hexOf(32), fields: listOf(fieldName) });
const STATEMENT = exactly({
  v: (value) => value === 1, action: text(/^(anonymize_run|delete_run|delete_tenant)$/), log: hexOf(16),
  run: maybe(hexOf(16)), at: moment, actor: text(ACTOR), legal_basis: text(/^[a-z0-9_.:-]{1,64}$/),
  request_ref: hexOf(32), items: maybe(listOf(ITEM)), checkpoint: maybe(string),
});

// Section 12: a well-formed statement that `note.key` signed. Whether that key counts is not decided here.
export function openStatement(note) {
  must(ERASURE(note), "no note of an erasure");
  const message = Buffer.concat([tag("erasure"), Buffer.from(note.statement)]);
  must(signed(hex(note.key), hex(note.signature), message), "a statement that its key did not sign");
  const statement = parsed(note.statement, VALUES);
  must(STATEMENT(statement), "no erasure statement");
  const ofTenant = statement.action === "delete_tenant";
  must((statement.run === null) === ofTenant && (statement.items === null) === ofTenant, "a run and items, or a tenant");
  if (!ofTenant) {
    const { items } = statement;
    must(items.length > 0 && items.every((item, at) => item.seq === at), "not every record from the first on");
    must(items.every(({ fields }) => new Set(fields).size === fields.length), "a field twice");
  }
  return { ...statement, stated: statement.checkpoint === null ? null : statedCheckpoint(statement) };
}

// Whose signature it bears is not decided here.
function statedCheckpoint({ checkpoint, log }) {
  const note = parseNote(Buffer.from(checkpoint));
  const stated = { note, ...checkpointOf(note) };
  must(stated.ledger.log === log, "a statement with a checkpoint of another log");
  return stated;
}
