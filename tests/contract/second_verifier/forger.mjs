// Makes whole bundles with keys of its own, sound but for what a `change` alters: for cases that need a signature.
import { createHash, createPrivateKey, createPublicKey, sign } from "node:crypto";
import {
  batchEntry, batchMessage, chainHash, commitment, genesis, hashLeaf, leafData, recordHash, sha256, tag,
  treeRoot, u64,
} from "./hashes.mjs";
import { canonical, FREE_KEYS } from "./json.mjs";
import { COSIGNATURE, ED25519, keyOf } from "./notes.mjs";
import { FIELDS } from "./records.mjs";
import { MEMBERS } from "./tar.mjs";

export const DEPLOYMENT = "forged.example";
const made = (label, bytes) => createHash("sha256").update(label).digest().subarray(0, bytes);
export const idOf = (label) => made(label, 16).toString("hex");
const raw = (id) => Buffer.from(id, "hex");
export const json = (value) => canonical(value, FREE_KEYS);
export const [LOG, OPERATOR, RUN, ADMIN, OPERATOR_ADMIN] = ["log", "operator", "run", "admin", "operator admin"].map(idOf);

export class Signer {
  constructor(label) {
    const seed = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), made(`seed ${label}`, 32)]);
    this.secret = createPrivateKey({ key: seed, format: "der", type: "pkcs8" });
    this.publicKey = createPublicKey(this.secret).export({ format: "der", type: "spki" }).subarray(-32);
    Object.assign(this, { id: idOf(`writer ${label}`), hex: this.publicKey.toString("hex") });
  }

  sign = (message) => sign(null, message, this.secret);
  vkey(name, type = ED25519) {
    const key = keyOf(name, type, this.publicKey);
    return `${name}+${key.id.toString("hex")}+${Buffer.concat([Buffer.from([type]), this.publicKey]).toString("base64")}`;
  }

  line(name, signature, type = ED25519) {
    const { id } = keyOf(name, type, this.publicKey);
    return `\u2014 ${name} ${Buffer.concat([id, signature]).toString("base64")}\n`;
  }
}

const labels = ["log", "enrolment", "erasure", "witness", "writer", "other", "newer"];
export const KEYS = Object.fromEntries(labels.map((label) => [label, new Signer(label)]));
export const originOf = (log) => `${DEPLOYMENT}/ledger/${log}`;

export const POLICY = `log ${KEYS.log.vkey(originOf(OPERATOR))}
witness w ${KEYS.witness.vkey("w.example", COSIGNATURE)}
quorum w
#meshflow/v1 enrolment ${KEYS.enrolment.vkey(`${DEPLOYMENT}/enrolment`)}
#meshflow/v1 erasure ${KEYS.erasure.vkey(`${DEPLOYMENT}/erasure`)}
`;

// One run's records, each on the one before.
export class Chain {
  constructor(log, run) {
    Object.assign(this, { log, run, tip: genesis(raw(log), raw(run)), records: [] });
  }

  add(kind, fields, change = {}) {
    const seq = this.records.length;
    const payloads = Object.entries(fields).map(([name, value]) => (
      { name, value: Buffer.from(value), salt: made(`${this.run}${seq}${name}`, 32) }));
    const commit = Object.fromEntries(payloads.map(({ name, value, salt }) => (
      [name, commitment(raw(this.log), raw(this.run), seq, name, salt, value).toString("hex")])));
    const size = Object.fromEntries(payloads.map(({ name, value }) => [name, value.length.toString(2).length]));
    const nothing = ["intent", "parent", "policy", "model", "engine", "tool", "usage", "outcome", "sandbox", "approval",
      "scrub"].map((name) => [name, null]);
    const header = { ...Object.fromEntries(nothing), v: 1, log: this.log, run: this.run, seq, epoch: 1, kind,
      ts: "2026-08-01T12:00:00.000000Z", event_id: idOf(`event ${seq}`), nonce: idOf(`nonce ${seq}`), actor: "system",
      writer: KEYS.writer.id, size, commit, ...change.header };
    const bytes = Buffer.from(change.bytes?.(json(header)) ?? json(header));
    const rc = change.rc ?? recordHash(bytes);
    const previous = this.tip;
    this.tip = change.chain ?? chainHash(previous, seq, rc);
    const record = { seq, header, bytes, rc, previous, chain: this.tip, payloads };
    this.records.push(record);
    return record;
  }

  leaf = ({ seq, chain }) => hashLeaf(leafData(raw(this.log), raw(this.run), seq, chain));
}

// RFC 6962 section 2.1.1.
export function pathOf(leaves, index) {
  if (leaves.length === 1) return [];
  let split = 1;
  while (split * 2 < leaves.length) split *= 2;
  const [left, right] = [leaves.slice(0, split), leaves.slice(split)];
  return index < split ? [...pathOf(left, index), treeRoot(right)] : [...pathOf(right, index - split), treeRoot(left)];
}

export function signedCheckpoint(log, leaves, key = KEYS.log) {
  const text = `${originOf(log)}\n${leaves.length}\n${treeRoot(leaves).toString("base64")}\n`;
  return { text, note: `${text}\n${key.line(originOf(log), key.sign(Buffer.from(text)))}` };
}

export function cosigned({ text, note }, time = 1000, key = KEYS.witness) {
  const message = Buffer.from(`cosignature/v1\ntime ${time}\n${text}`);
  return note + key.line("w.example", Buffer.concat([u64(time), key.sign(message)]), COSIGNATURE);
}

export function entryOf(chain, record, leaves, index) {
  const { value, salt } = record.payloads.find(({ name }) => name === "note");
  return { log: chain.log, run: chain.run, seq: record.seq, index, size: leaves.length, field: 8,
    header: record.bytes.toString("base64"), previous: record.previous.toString("hex"), salt: salt.toString("hex"),
    value: value.toString("base64"), proof: pathOf(leaves, index).map((hash) => hash.toString("base64")) };
}

export function statementOf(action, records, change = {}) {
  const items = records.map(({ seq, rc, chain, payloads }) => (
    { seq, rc: rc.toString("hex"), chain: chain.toString("hex"), fields: payloads.map(({ name }) => name).sort() }));
  return { v: 1, action, log: LOG, run: RUN, at: "2026-08-02T00:00:00.000000Z", actor: "operator",
    legal_basis: "gdpr.art17", request_ref: sha256(Buffer.from("request")).toString("hex"), items, checkpoint: null,
    ...change };
}

export function erasureNote(statement, key = KEYS.erasure) {
  const text = json(statement);
  const signature = key.sign(Buffer.concat([tag("erasure"), Buffer.from(text)]));
  return { statement: text, signature: signature.toString("hex"), key: key.hex };
}

export function rotationNote(role, old, next, sizes) {
  const told = { new: next.hex, old: old.hex, role, sizes };
  const message = Buffer.concat([tag("rotate"), Buffer.from(json(told))]);
  return { ...told, old_signature: old.sign(message).toString("hex"), new_signature: next.sign(message).toString("hex") };
}

export function batchRow(records, change = {}) {
  const ranges = Buffer.concat([raw(RUN), u64(records[0].seq), u64(records[records.length - 1].seq)]);
  const tip = change.tip ?? treeRoot(records.map(({ seq, chain }) => hashLeaf(batchEntry(raw(RUN), seq, chain))));
  const [id, n] = [idOf(`batch ${records[0].seq}`), change.n ?? records.length];
  const writer = change.writer ?? KEYS.writer;
  const signature = writer.sign(batchMessage(raw(LOG), raw(id), n, tip));
  return { batch_id: id, writer_id: writer.id, n, ranges: (change.ranges ?? ranges).toString("base64"),
    tip: tip.toString("hex"), sig: signature.toString("base64"), entries: change.entries ?? null };
}

export function writerRow(writer, by = KEYS.enrolment) {
  const certificate = by.sign(Buffer.concat([tag("writer"), raw(writer.id), writer.publicKey]));
  return { writer_id: writer.id, public_key: writer.publicKey.toString("base64"),
    certificate: certificate.toString("base64") };
}

// The members of a bundle, with a manifest that fits them.
export function membersOf(parts) {
  const lines = (rows) => Buffer.from(rows.map((row) => `${json(row)}\n`).join(""));
  const members = new Map(MEMBERS.slice(1).map((name) => {
    const part = parts[name];
    if (name.endsWith(".jsonl")) return [name, lines(part)];
    return [name, Buffer.from(name.endsWith(".json") ? `${json(part)}\n` : part)];
  }));
  const files = Object.fromEntries([...members].map(([name, data]) => [name, sha256(data).toString("hex")]));
  members.set("manifest.json", Buffer.from(`${json({ format: "meshflow-bundle/v1", log: LOG, run: RUN, files })}\n`));
  return members;
}

export const fieldNumber = (name) => FIELDS.indexOf(name);
