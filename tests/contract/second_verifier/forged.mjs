// `node forged.mjs [DIRECTORY]`: bundles that no vector has, each sound but for one thing, and what the page demands
// of them; 1 if one is answered otherwise. Into DIRECTORY it writes them, for another verifier: NAME.tar, NAME.policy
// and `expected` with lines of `<exit> <name>`.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { answer } from "./bundle.mjs";
import {
  ADMIN, batchRow, Chain, cosigned, entryOf, erasureNote, fieldNumber, idOf, json, KEYS, LOG, membersOf, OPERATOR,
  OPERATOR_ADMIN, pathOf, POLICY, rotationNote, RUN, signedCheckpoint, statementOf, writerRow,
} from "./forger.mjs";
import { sha256 } from "./hashes.mjs";
import { parsePolicy } from "./policy.mjs";
import { writeTar } from "./tar.mjs";

const ALL = ["0/task", "1/call", "2/output"];
const FIELDS = [["run.started", "task"], ["tool.called", "call"], ["run.finished", "output"]];

function recordRows(run, leaves, places, deleted) {
  return run.records.map(({ seq, header, bytes, rc, chain }) => {
    const [gone, index] = [deleted.includes(seq), places(run.records[seq])];
    return { seq, epoch: gone ? null : header.epoch, kind: gone ? null : header.kind, ts: gone ? null : header.ts,
      header: gone ? null : bytes.toString("base64"), rc: rc.toString("hex"), chain: chain.toString("hex"),
      batch_id: idOf(`batch ${seq < 2 ? 0 : 2}`), index,
      proof: index === null ? null : pathOf(leaves, index).map((hash) => hash.toString("base64")) };
  });
}

const payloadRows = (run, gone) => run.records.flatMap(({ seq, payloads }) => payloads
  .filter(({ name }) => !gone.includes(`${seq}/${name}`))
  .map(({ name, salt, value }) => (
    { seq, field: fieldNumber(name), salt: salt.toString("base64"), value: value.toString("base64") })));

// A tenant's log and the operator's, from the first record to the tar, altered by `change` on the way.
function forged(change) {
  const run = new Chain(LOG, RUN);
  FIELDS.forEach(([kind, name], seq) => run.add(kind, { [name]: '"x"' }, change.records?.[seq]));
  const admin = new Chain(LOG, change.admin ?? ADMIN);
  admin.add("admin.opened", { note: "{}" });
  const erasures = (change.erasures?.(run) ?? []).map(({ kind, note }) => admin.add(kind, { note: json(note) }));
  const order = [...run.records.map((record) => [run, record]), ...admin.records.map((record) => [admin, record])];
  const log = change.order?.(order) ?? order;
  const leaves = log.map(([chain, record]) => chain.leaf(record));
  const place = (record) => log.findIndex(([, one]) => one === record);
  const tenant = signedCheckpoint(change.tenantLog ?? LOG, leaves, change.logKey);
  const operator = new Chain(OPERATOR, OPERATOR_ADMIN);
  operator.tip = change.operatorTip ?? operator.tip;
  if (change.operatorTip === undefined) operator.add("admin.opened", { note: "{}" });
  const notes = (change.operator ?? []).map(({ kind, note }) => operator.add(kind, { note: json(note) }));
  const anchor = operator.add(change.anchorKind ?? "checkpoint.tenant", { note: json({ checkpoint: tenant.note }) });
  const above = [...operator.records.map(operator.leaf), ...(change.more ?? [])];
  const entries = [...erasures.map((one) => entryOf(admin, one, leaves, place(one))),
    ...notes.map((one) => entryOf(operator, one, above, one.seq))];
  const parts = {
    "records.jsonl": recordRows(run, leaves, change.places ?? place, change.deleted ?? []),
    "payloads.jsonl": payloadRows(run, change.gone ?? []),
    "batches.jsonl": [batchRow(run.records.slice(0, 2), change.batch), batchRow(run.records.slice(2))],
    "writers.jsonl": [writerRow(KEYS.writer)],
    "checkpoint.note": tenant.note,
    "anchor.json": entryOf(operator, anchor, above, anchor.seq),
    "operator.note": cosigned(signedCheckpoint(OPERATOR, above)),
    "administration.jsonl": entries,
  };
  change.parts?.(parts, { run, admin, operator, leaves, above, tenant });
  const members = membersOf(parts);
  change.members?.(members);
  const tar = writeTar(members);
  change.tar?.(tar);
  return tar;
}

const erasing = (action, more = {}, key = KEYS.erasure, kind = `erasure.${action}`) => (run) =>
  [{ kind, note: erasureNote(statementOf(action, run.records, more), key) }];
const anonymize = (more, key, kind) => ({ erasures: erasing("anonymize_run", more, key, kind), gone: ALL });
const remove = (more) => ({ erasures: erasing("delete_run", more), gone: ALL, deleted: [0, 1, 2] });
const itemsOf = (run, alter) => {
  const { items } = statementOf("", run.records);
  return alter(items) ?? items;
};
const anonymizeItems = (alter, more = {}) => ({
  erasures: (run) => erasing("anonymize_run", { items: itemsOf(run, alter) })(run), gone: ALL, ...more });
const retirement = (sizes) => ({ kind: "key.retired", note: { writer_id: KEYS.writer.id, sizes } });
const rotation = (role, old, next, sizes) => ({ kind: "key.rotated", note: rotationNote(role, old, next, sizes) });
const LEAF = sha256(Buffer.from("a leaf"));
const checkpointOf = (log, leaves) => signedCheckpoint(log, Array(leaves).fill(LEAF)).note;
const [AFTER_3, AFTER_4] = [3, 4].map((size) => ({ [LOG]: size, [OPERATOR]: 3 }));
const bad = (note) => ({ kind: "key.rotated", note: { ...note, old_signature: "00".repeat(64) } });
const { log: LOG_KEY, erasure: ERASURE, enrolment: ENROLMENT, newer: NEWER, other: OTHER } = KEYS;

// One more record of the operator's log, of a chain of its own, and its entry.
function second(run, seq, { call, note = (text) => text } = {}) {
  const chain = new Chain(OPERATOR, run);
  for (let at = 0; at < seq; at += 1) chain.add("schema.change", { note: "{}" });
  const fields = { note: note(json(retirement({ [LOG]: 9 }).note)), ...(call === undefined ? {} : { call }) };
  const record = chain.add("key.retired", fields);
  return { more: [chain.leaf(record)], parts: (parts, { above }) => {
    parts["administration.jsonl"].push(entryOf(chain, record, above, 2)); } };
}

const CASES = [
  [0, "sound", {}],
  [0, "anonymized", anonymize()],
  [0, "deleted", remove()],
  [0, "anonymized, then deleted", { ...remove(), erasures: (run) => [...erasing("anonymize_run")(run),
    { kind: "erasure.delete_run", note: erasureNote(statementOf("delete_run", run.records, {
      items: itemsOf(run, (items) => items.map((item) => ({ ...item, fields: [] }))) })) }] }],
  [0, "anonymized in two statements", { gone: ALL, erasures: (run) => [0, 1].flatMap((turn) => erasing("anonymize_run", {
    items: itemsOf(run, (items) => items.map((item) => (
      { ...item, fields: (item.seq === 0) === (turn === 0) ? item.fields : [] }))) })(run)) }],
  [3, "a path that is of another leaf", { parts: (parts) => {
    parts["records.jsonl"][1].proof = parts["records.jsonl"][0].proof; } }],
  [3, "a record that is not in the tree", { parts: (parts, { leaves }) => {
    parts["records.jsonl"][2].index = 3;
    parts["records.jsonl"][2].proof = pathOf(leaves, 3).map((hash) => hash.toString("base64")); } }],
  [3, "records in another order in the log", { order: ([a, b, ...rest]) => [b, a, ...rest] }],
  [3, "a header that is not canonical", { records: { 1: { bytes: (text) => text.replace(",", ", ") } } }],
  [3, "a header with a member too many", { records: { 1: { header: { zone: null } } } }],
  [3, "a header with prose", { records: { 1: { header: { outcome: "it went well" } } } }],
  [3, "a kind that ends in a newline", { records: { 1: { header: { kind: "tool.called\n" } } } }],
  [3, "an intent of later", { records: { 1: { header: { intent: 1 } } } }],
  [3, "an epoch that falls", { records: { 0: { header: { epoch: 2 } } } }],
  [3, "sizes of other fields", { records: { 1: { header: { size: {} } } } }],
  [3, "a size that is not the value's", { records: { 1: { header: { size: { call: 60 } } } } }],
  [3, "a number of the sequence that repeats", { records: { 2: { header: { seq: 1 } } } }],
  [3, "another writer in a header", { records: { 1: { header: { writer: OTHER.id } } } }],
  [3, "a record hash that is none", { records: { 1: { rc: Buffer.alloc(32, 7) } } }],
  [3, "a chain hash that is none", { records: { 2: { chain: Buffer.alloc(32, 7) } } }],
  [3, "a tip over other records", { batch: { tip: Buffer.alloc(32, 7) } }],
  [3, "a batch of more records than its ranges", { batch: { n: 3 } }],
  [3, "a certificate by another key", { parts: (parts) => { parts["writers.jsonl"] = [writerRow(KEYS.writer, OTHER)]; } }],
  [3, "a writer of nothing here", { parts: (parts) => parts["writers.jsonl"].push(writerRow(OTHER)) }],
  [3, "a batch of nothing here", { parts: (parts, { run }) => parts["batches.jsonl"].push(batchRow(run.records.slice(1, 2))) }],
  [3, "a checkpoint of another log", { tenantLog: idOf("another log") }],
  [3, "a checkpoint by another key", { logKey: OTHER }],
  [3, "an anchor of another kind", { anchorKind: "schema.change" }],
  [3, "an anchor of another checkpoint", { parts: (parts, { leaves }) => {
    parts["checkpoint.note"] = signedCheckpoint(LOG, leaves).note.replace(/\n\n/, "\n\n\u2014 x AAAAAAA=\n"); } }],
  [3, "an anchor of no checkpoint", { places: () => null, parts: (parts) => { parts["checkpoint.note"] = ""; } }],
  [2, "no place and no checkpoint", { places: () => null, parts: (parts) => {
    Object.assign(parts, { "checkpoint.note": "", "anchor.json": null }); } }],
  [3, "an erasure by another key", anonymize({}, OTHER)],
  [3, "an erasure of another kind", anonymize({}, ERASURE, "erasure.delete_run")],
  [3, "an erasure of another run", anonymize({ run: idOf("another run") })],
  [3, "an erasure of another log", anonymize({ log: idOf("another log") })],
  [0, "an erasure with a checkpoint of before", anonymize({ checkpoint: checkpointOf(LOG, 4) })],
  [3, "an erasure with a checkpoint of later", anonymize({ checkpoint: checkpointOf(LOG, 5) })],
  [3, "an erasure with a checkpoint of another log", anonymize({ checkpoint: checkpointOf(OPERATOR, 2) })],
  [3, "an erasure of another record hash", anonymizeItems((items) => { items[1].rc = "07".repeat(32); })],
  [3, "an erasure of another chain hash", anonymizeItems((items) => { items[1].chain = "07".repeat(32); })],
  [3, "an erasure that skips a record", anonymizeItems((items) => items.slice(1), { gone: ALL.slice(1) })],
  [3, "an erasure of a record too many", anonymizeItems((items) => [...items, { ...items[2], seq: 3 }])],
  [3, "an erasure with a field twice", anonymizeItems((items) => { items[0].fields.push("task"); })],
  [3, "an erasure of a field that is none", anonymizeItems((items) => { items[0].fields.push("prose"); })],
  [3, "an erasure of a field that never was", anonymizeItems((items) => { items[0].fields.push("reply"); })],
  [3, "an erasure that stands before a record", { ...anonymize(), order: (log) => [log[0], log[1], log[3], log[4], log[2]] }],
  [3, "a deletion that leaves out a record", { erasures: (run) => erasing("delete_run", {
    items: itemsOf(run, (items) => items.slice(0, 2)) })(run), gone: ALL.slice(0, 2), deleted: [0, 1] }],
  [3, "a header gone after an anonymization", { ...anonymize(), deleted: [1] }],
  [3, "two administration runs in a log", second(idOf("another admin"), 2)],
  [3, "a first entry that follows another", { operatorTip: Buffer.alloc(32, 9) }],
  [4, "a checksum that is off by one", { tar: (tar) => { tar[153] ^= 1; } }],
  [4, "padding that is not zero", { tar: (tar) => {
    tar[512 + parseInt(tar.subarray(124, 135).toString(), 8)] = 1; } }], // the first byte after the manifest
  [3, "a digest that is another file's", { members: (members) => {
    const manifest = JSON.parse(members.get("manifest.json"));
    manifest.files["anchor.json"] = manifest.files["operator.note"];
    members.set("manifest.json", Buffer.from(`${json(manifest)}\n`)); } }],
  [3, "a header with a key in capitals", { records: { 1: { header: { scrub: { counts: {}, engine: { A: 1 }, hmac_key: null,
    mode: "", ms: 1, ner: null, policy: "", rules: "", status: "", unscanned: 0 } } } } }],
  [3, "an entry with another field beside its note", second(OPERATOR_ADMIN, 2, { call: "1" })],
  [3, "an entry whose note is not canonical", second(OPERATOR_ADMIN, 2, { note: (text) => text.replace(",", ", ") })],
  [3, "an entry of a kind that nobody asked for", { operator: [{ kind: "schema.change", note: { from: null, to: "1" } }] }],
  [0, "a writer retired later", { operator: [retirement({ [LOG]: 3 })] }],
  [3, "a writer retired before its last record", { operator: [retirement({ [LOG]: 2 })] }],
  [3, "a writer retired with no size for the log", { operator: [retirement({})] }],
  [3, "a writer retired twice, once too early", { operator: [retirement({ [LOG]: 9 }), retirement({ [LOG]: 1 })] }],
  [0, "a log key rotated at the very size", { operator: [rotation("log", LOG_KEY, NEWER, AFTER_4)] }],
  [3, "a log key rotated a record before", { operator: [rotation("log", LOG_KEY, NEWER, AFTER_3)] }],
  [3, "a new log key at the very size", { logKey: NEWER, operator: [rotation("log", LOG_KEY, NEWER, AFTER_4)] }],
  [0, "a new log key after the size", { logKey: NEWER, operator: [rotation("log", LOG_KEY, NEWER, AFTER_3)] }],
  [3, "a rotation that the old key did not sign", { logKey: NEWER,
    operator: [bad(rotationNote("log", LOG_KEY, NEWER, AFTER_3))] }],
  [3, "a rotation of another role", { logKey: NEWER, operator: [rotation("erasure", LOG_KEY, NEWER, AFTER_3)] }],
  [3, "a rotation of a key into itself", { operator: [rotation("erasure", ERASURE, ERASURE, {})] }],
  [3, "a key with two successors", { operator: [rotation("erasure", ERASURE, NEWER, {}), rotation("erasure", ERASURE, OTHER, {})] }],
  [3, "a key with two predecessors", { operator: [rotation("erasure", ERASURE, NEWER, {}), rotation("erasure", OTHER, NEWER, {})] }],
  [0, "a new erasure key", { ...anonymize({}, NEWER), operator: [rotation("erasure", ERASURE, NEWER, {})] }],
  [3, "an old erasure key at the very size", { ...anonymize(), operator: [rotation("erasure", ERASURE, NEWER, { [LOG]: 4 })] }],
  [0, "an old erasure key below the size", { ...anonymize(), operator: [rotation("erasure", ERASURE, NEWER, { [LOG]: 5 })] }],
  [3, "an old enrolment key at the very size", { operator: [rotation("enrolment", ENROLMENT, NEWER, { [LOG]: 2 })] }],
  [0, "an old enrolment key below the size", { operator: [rotation("enrolment", ENROLMENT, NEWER, { [LOG]: 3 })] }],
];

function main(directory) {
  if (directory !== undefined) mkdirSync(directory, { recursive: true });
  const policy = parsePolicy(Buffer.from(POLICY));
  const failures = [];
  for (const [exit, name, change] of CASES) {
    const tar = forged(change);
    const { code, told, crashed } = answer(tar, policy, {});
    if (code !== exit || crashed) failures.push(`FAIL ${name}: exit ${code} and not ${exit}: ${told}`);
    if (directory !== undefined) writeFileSync(join(directory, `${name}.tar`), tar);
    if (process.env.TOLD) console.log(code, name, "|", told.split("\n")[0]);
  }
  if (directory !== undefined) {
    writeFileSync(join(directory, "policy"), POLICY);
    writeFileSync(join(directory, "expected"), CASES.map(([exit, name]) => `${exit} ${name}\n`).join(""));
  }
  for (const failure of failures) console.log(failure);
  console.log(`${CASES.length - failures.length} forged bundles answered as the page demands, ${failures.length} not`);
  return failures.length === 0 ? 0 : 1;
}

process.exitCode = main(process.argv[2]);
