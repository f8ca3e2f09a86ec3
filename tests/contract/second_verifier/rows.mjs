// The rows of a bundle's members, with their shapes (docs/ledger-format.md section 13).
import { sha256 } from "./hashes.mjs";
import {
  base64, count, exactly, hex, hexOf, listOf, mapOf, maybe, must, parsed, sameNames, string, unlessRefused, utf8,
} from "./json.mjs";
import { MEMBERS, Unusable } from "./tar.mjs";

const MANIFEST = exactly({
  format: (value) => value === "meshflow-bundle/v1",
  log: hexOf(16),
  run: hexOf(16),
  files: mapOf((name) => MEMBERS.includes(name), hexOf(32)),
});

// A manifest of another form is no bundle (4); one that does not fit what it is about does not hold (3).
export function openManifest(members) {
  const named = Object.fromEntries(MEMBERS.slice(1).map((name) => [name, null]));
  const manifest = unlessRefused(() => oneJson(members.get("manifest.json")));
  if (manifest === null || !MANIFEST(manifest) || !sameNames(manifest.files, named)) {
    throw new Unusable("no manifest of this format");
  }
  for (const [name, digest] of Object.entries(manifest.files)) {
    must(sha256(members.get(name)).toString("hex") === digest, `${name} is not what the manifest says`);
  }
  return { log: hex(manifest.log), run: hex(manifest.run), logHex: manifest.log, runHex: manifest.run };
}

export function oneJson(data) {
  const source = utf8(data);
  must(source.endsWith("\n"), "JSON without its newline");
  return parsed(source.slice(0, -1));
}

export function jsonLines(data) {
  const source = utf8(data);
  if (source === "") return [];
  must(source.endsWith("\n"), "a last line without its end");
  return source.slice(0, -1).split("\n").map((line) => parsed(line));
}

const shaped = (data, shape, what) => jsonLines(data).map((row) => {
  must(shape(row), `not a row of ${what}`);
  return row;
});

const RECORD = exactly({
  seq: count, epoch: maybe(count), kind: maybe(string), ts: maybe(string), header: maybe(string), rc: hexOf(32),
  chain: hexOf(32), batch_id: hexOf(16), index: maybe(count), proof: maybe(listOf(string)),
});

export const openRecords = (data) => shaped(data, RECORD, "records").map((row) => {
  must((row.index === null) === (row.proof === null), `record ${row.seq}: a place without a proof, or the reverse`);
  return {
    seq: row.seq,
    header: row.header === null ? null : base64(row.header),
    columns: { epoch: row.epoch, kind: row.kind, ts: row.ts },
    rc: hex(row.rc),
    chain: hex(row.chain),
    rcHex: row.rc,
    chainHex: row.chain,
    batchId: row.batch_id,
    index: row.index,
    path: row.proof === null ? null : row.proof.map((hash) => base64(hash, 32)),
  };
});

const PAYLOAD = exactly({ seq: count, field: count, salt: string, value: string });

export function openPayloads(data) {
  const rows = shaped(data, PAYLOAD, "payloads").map((row) => (
    { seq: row.seq, field: row.field, salt: base64(row.salt, 32), value: base64(row.value) }));
  rows.slice(1).forEach((row, at) => {
    const before = rows[at];
    const later = row.seq > before.seq || (row.seq === before.seq && row.field > before.field);
    must(later, `record ${row.seq}: a payload twice, or out of order`);
  });
  return rows;
}

const PATH = exactly({ index: count, proof: listOf(string) });
const BATCH = exactly({
  batch_id: hexOf(16), writer_id: hexOf(16), n: count, ranges: string, tip: hexOf(32), sig: string,
  entries: maybe(listOf(PATH)),
});

export const openBatches = (data) => byName(shaped(data, BATCH, "batches").map((row) => ({
  name: row.batch_id,
  id: hex(row.batch_id),
  writerId: row.writer_id,
  n: row.n,
  ranges: openRanges(base64(row.ranges), row.n),
  tip: hex(row.tip),
  signature: base64(row.sig, 64),
  entries: row.entries?.map(({ index, proof }) => ({ index, path: proof.map((hash) => base64(hash, 32)) })) ?? null,
})));

// For each run of a batch, its hex: the first and last seq and how many entries come before it.
export function openRanges(data, n) {
  must(data.length > 0 && data.length % 32 === 0, "ranges of another length");
  const found = new Map();
  let before = 0;
  for (let at = 0; at < data.length; at += 32) {
    const run = data.subarray(at, at + 16).toString("hex");
    const [first, last] = [Number(data.readBigUInt64BE(at + 16)), Number(data.readBigUInt64BE(at + 24))];
    must(Number.isSafeInteger(last) && first <= last && !found.has(run), "ranges backwards, or a run twice");
    found.set(run, { first, last, before });
    before += last - first + 1;
  }
  must(before === n && n < 2 ** 32, "ranges of another number of records");
  return found;
}

const WRITER = exactly({ writer_id: hexOf(16), public_key: string, certificate: string });

export const openWriters = (data) => byName(shaped(data, WRITER, "writers").map((row) => ({
  name: row.writer_id,
  id: hex(row.writer_id),
  publicKey: base64(row.public_key, 32),
  certificate: base64(row.certificate, 64),
})));

function byName(rows) {
  const found = new Map(rows.map((row) => [row.name, row]));
  must(found.size === rows.length, "a batch or a writer twice");
  return found;
}
