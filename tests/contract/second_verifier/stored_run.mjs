// One run as the tables of docs/ledger-format.md section 7 hold it, and where it breaks (section 8).
import { batchEntry, batchMessage, hashLeaf, openBlob, signed, treeRoot } from "./hashes.mjs";
import { hex, must, Refused } from "./json.mjs";
import { ChainWalk, checkPayload } from "./records.mjs";
import { openRanges } from "./rows.mjs";

// What the batch keeps of all its records, in the order of its ranges. Without `entries` it holds this run alone.
function chainsOf(batch, own, ranges, place) {
  const span = ranges.get(place.run.toString("hex"));
  must(span !== undefined && span.first === own[0].seq && span.last === own.at(-1).seq, "ranges of other records");
  const chains = own.map(({ chain }) => hex(chain, 32));
  if ((batch.entries ?? null) === null) {
    must(ranges.size === 1, "records of other runs, and no entries");
    return chains;
  }
  const entries = hex(batch.entries, 32 * batch.n);
  const all = Array.from({ length: batch.n }, (_, at) => entries.subarray(32 * at, 32 * at + 32));
  must(chains.every((chain, at) => chain.equals(all[span.before + at])), "entries of other records");
  return all;
}

// A batch of the run: `own` are its records there, one after the other.
function checkBatch(place, rows, own) {
  const batch = rows.batch.find((one) => one.batch_id === own[0].batch_id);
  must(batch !== undefined && own.every(({ header }) => header.writer === batch.writer_id), "its batch, or its writer");
  const writer = rows.writer_key.find((one) => one.writer_id === batch.writer_id);
  must(writer !== undefined, "its writer is missing");
  const ranges = openRanges(hex(batch.ranges), batch.n);
  const all = chainsOf(batch, own, ranges, place);
  const leaves = [...ranges].flatMap(([run, { first, last, before }]) => (
    Array.from({ length: last - first + 1 }, (_, at) => hashLeaf(batchEntry(hex(run, 16), first + at, all[before + at])))));
  const tip = hex(batch.tip, 32);
  must(treeRoot(leaves).equals(tip), "not what its batch signed");
  const message = batchMessage(place.log, hex(batch.batch_id, 16), batch.n, tip);
  must(signed(hex(writer.public_key, 32), hex(batch.sig, 64), message), "the signature of its batch");
}

function checkPayloads(place, rows, seq, header) {
  const found = new Set();
  for (const row of rows.payload.filter((one) => one.seq === seq)) {
    const opened = openBlob(place.runKey, { ...place, seq, number: row.field }, hex(row.blob));
    must(opened !== null, "a blob that does not open");
    found.add(checkPayload(place.log, place.run, header, { seq, field: row.field, ...opened }));
  }
  must(Object.keys(header.commit).every((name) => found.has(name)), "a field that is gone");
}

// The seq of the first break, or null; a batch that does not hold breaks at the run's first record in it.
// `place` has log, run and runKey.
export function brokenAt(place, rows) {
  const walk = new ChainWalk(place.log, place.run);
  if (rows.record.length === 0) return 0;
  let own = [];
  let at = 0;
  try {
    for (const [seq, row] of rows.record.entries()) {
      at = seq;
      const columns = { epoch: row.epoch, kind: row.kind, ts: row.ts };
      const record = { seq: row.seq, header: hex(row.header), columns, rc: hex(row.rc, 32), chain: hex(row.chain, 32) };
      must(row.tenant_id === place.log.toString("hex") && row.run_id === place.run.toString("hex"), "of another run");
      const header = walk.next(record);
      checkPayloads(place, rows, row.seq, header);
      own.push({ ...row, header });
      if (rows.record[seq + 1]?.batch_id === row.batch_id) continue;
      at = own[0].seq;
      checkBatch(place, rows, own);
      own = [];
    }
  } catch (error) {
    if (error instanceof Refused) return at;
    throw error;
  }
  return null;
}
