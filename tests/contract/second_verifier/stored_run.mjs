// One run as the tables of docs/ledger-format.md section 7 hold it, and where it breaks (section 8).
import { batchEntry, batchMessage, hashLeaf, openBlob, signed, treeRoot } from "./hashes.mjs";
import { hex, must, Refused } from "./json.mjs";
import { ChainWalk, checkPayload } from "./records.mjs";
import { openRanges } from "./rows.mjs";

function checkBatch(place, rows, record, header) {
  const batch = rows.batch.find((one) => one.batch_id === record.batch_id);
  must(batch !== undefined && header.writer === batch.writer_id, "its batch is missing, or another writer's");
  const writer = rows.writer_key.find((one) => one.writer_id === batch.writer_id);
  must(writer !== undefined, "its writer is missing");
  const message = batchMessage(place.log, hex(batch.batch_id, 16), batch.n, hex(batch.tip, 32));
  must(signed(hex(writer.public_key, 32), hex(batch.sig, 64), message), "the signature of its batch");
  const { first, last } = openRanges(hex(batch.ranges), batch.n).get(place.run.toString("hex")) ?? {};
  must(first <= record.seq && record.seq <= last, "ranges that do not cover it");
  // The entries of a batch are complete at its last record: only then can the tip be held against them.
  if (record.seq !== last) return;
  const leaves = rows.record.slice(first, last + 1).map(({ seq, chain }) => hashLeaf(batchEntry(place.run, seq, hex(chain))));
  must(leaves.length === batch.n && treeRoot(leaves).equals(hex(batch.tip)), "not what its batch signed");
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

// The seq of the first break, or null. `place` has log, run and runKey.
export function brokenAt(place, rows) {
  const walk = new ChainWalk(place.log, place.run);
  if (rows.record.length === 0) return 0;
  for (const [at, row] of rows.record.entries()) {
    const columns = { epoch: row.epoch, kind: row.kind, ts: row.ts };
    const record = { seq: row.seq, header: hex(row.header), columns, rc: hex(row.rc, 32), chain: hex(row.chain, 32) };
    try {
      must(row.tenant_id === place.log.toString("hex") && row.run_id === place.run.toString("hex"), "of another run");
      const header = walk.next(record);
      checkPayloads(place, rows, row.seq, header);
      checkBatch(place, rows, row, header);
    } catch (error) {
      if (error instanceof Refused) return at;
      throw error;
    }
  }
  return null;
}
