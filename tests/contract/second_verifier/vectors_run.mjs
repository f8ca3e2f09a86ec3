// The vectors of one run: docs/ledger-format.md sections 2 to 8.
import { createPrivateKey, sign } from "node:crypto";
import {
  batchEntry, batchMessage, chainHash, commitment, genesis, hashLeaf, keyedDigest, leafData, openBlob, recordHash,
  sealBlob, signed, treeRoot,
} from "./hashes.mjs";
import { canonical, hex, must } from "./json.mjs";
import { FIELDS, parseHeader } from "./records.mjs";
import { brokenAt } from "./stored_run.mjs";

const PKCS8 = Buffer.from("302e020100300506032b657004220420", "hex"); // RFC 8410: an Ed25519 seed in DER
const same = (made, told) => made.toString("hex") === told;

function checkBlob(input, output) {
  const { field, seq } = input;
  const [log, run, key] = [hex(input.log, 16), hex(input.run, 16), hex(input.run_key, 32)];
  const [nonce, salt, value] = [hex(input.nonce, 12), hex(input.salt, 32), hex(input.value)];
  must(FIELDS[field] !== undefined && field > 0, "no such field");
  const place = { log, run, seq, number: field };
  const opened = openBlob(key, place, hex(output.blob));
  must(opened !== null, "a blob that does not open");
  const sealed = sealBlob(key, place, nonce, Buffer.concat([salt, value]));
  return opened.salt.equals(salt) && opened.value.equals(value) && same(sealed, output.blob);
}

function checkHeader({ members }, output) {
  const data = hex(output.header);
  const header = parseHeader(data);
  if (members === null) return true; // accepted, which no header without members may be
  return canonical(header) === canonical(members) && same(recordHash(data), output.record_hash);
}

function checkBatch(input, output) {
  const message = batchMessage(hex(input.log, 16), hex(input.batch_id, 16), input.n, hex(input.mth, 32));
  const seed = Buffer.concat([PKCS8, hex(input.private_key, 32)]);
  const made = sign(null, message, createPrivateKey({ key: seed, format: "der", type: "pkcs8" }));
  const holds = signed(hex(input.public_key, 32), hex(output.signature), hex(output.message));
  return same(message, output.message) && same(made, output.signature) && holds;
}

function checkChain(input, output) {
  if (output.genesis !== undefined) return same(genesis(hex(input.log, 16), hex(input.run, 16)), output.genesis);
  return same(chainHash(hex(input.previous, 32), input.seq, hex(input.record_hash, 32)), output.chain);
}

const entryOf = ({ run, seq, chain }) => hashLeaf(batchEntry(hex(run, 16), seq, hex(chain, 32)));
const leafOf = ({ log, run, seq, chain }) => leafData(hex(log, 16), hex(run, 16), seq, hex(chain, 32));

function checkCommitment({ log, run, seq, field, salt, value }, output) {
  return same(commitment(hex(log, 16), hex(run, 16), seq, field, hex(salt, 32), hex(value)), output.commitment);
}

function checkRun({ log, run, run_key: runKey }, output, { valid }) {
  const found = brokenAt({ log: hex(log, 16), run: hex(run, 16), runKey: hex(runKey, 32) }, output.rows);
  return found === output.broken_at ? found === null : `breaks at ${found}, and not at ${output.broken_at} (${valid})`;
}

export const RUN_KINDS = {
  batch: { shapes: ["batch_id log mth n private_key public_key -> message signature"], check: checkBatch },
  blob: { shapes: ["field log nonce run run_key salt seq value -> blob"], check: checkBlob },
  chain: { shapes: ["log run -> genesis", "previous record_hash seq -> chain"], check: checkChain },
  commitment: { shapes: ["field log run salt seq value -> commitment"], check: checkCommitment },
  digest: {
    shapes: ["data purpose run_key -> digest"],
    check: (input, output) => same(keyedDigest(hex(input.run_key, 32), input.purpose, hex(input.data)), output.digest),
  },
  header: { shapes: ["members -> header record_hash", "members -> header"], check: checkHeader },
  leaf: {
    shapes: ["chain log run seq -> leaf_hash"],
    check: (input, output) => same(hashLeaf(leafOf(input)), output.leaf_hash),
  },
  run: { shapes: ["log run run_key -> broken_at rows"], check: checkRun },
  tree: {
    shapes: ["entries -> mth"],
    check: (input, output) => same(treeRoot(input.entries.map(entryOf)), output.mth),
  },
};
export { leafOf, same };
