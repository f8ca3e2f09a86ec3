// The vectors of the log, its keys, erasure and bundles: docs/ledger-format.md sections 9 to 13.
import { checkNote, checkRotation, openEntry, openStatement, retiredAt } from "./administration.mjs";
import { answer } from "./bundle.mjs";
import { consistent, hashLeaf, included, sha256, signed, tag, treeRoot, u64 } from "./hashes.mjs";
import { base64, hex, must, unlessRefused } from "./json.mjs";
import { checkpointOf, COSIGNATURE, ED25519, ledgerOf, parseNote, parseProof, signersOf, verifierKey } from "./notes.mjs";
import { parsePolicy } from "./policy.mjs";
import { parseHeader } from "./records.mjs";
import { writeTar } from "./tar.mjs";
import { leafOf, same } from "./vectors_run.mjs";

const hashes = (list) => list.map((hash) => hex(hash));
const leaves = (size) => Array.from({ length: size }, (_, at) => hashLeaf(u64(at)));

function checkTile({ level, n, size }, output) {
  const span = 256 ** level;
  const all = leaves(size);
  const subtrees = Array.from({ length: Math.floor(size / span) }, (_, at) => treeRoot(all.slice(at * span, (at + 1) * span)));
  const tile = subtrees.slice(n * 256, (n + 1) * 256);
  return tile.length === output.width && same(sha256(...tile), output.sha256);
}

// Of a vector that does not hold the output is no excuse: what is accepted at all counts as accepted.
const accepted = (vector, matches) => !vector.valid || matches;

function checkNoteFile({ vkeys }, { note, signed_by: names }, vector) {
  const signers = signersOf(parseNote(Buffer.from(note)), vkeys.map(verifierKey));
  const found = [...signers.keys()].map(({ name }) => name).sort();
  return found.length > 0 && accepted(vector, found.join("\n") === [...names].sort().join("\n"));
}

// A checkpoint that one of these keys signed, under the key's own name.
function openCheckpoint(data, vkeys) {
  const note = parseNote(data);
  const checkpoint = checkpointOf(note);
  const keys = vkeys.map(verifierKey).filter(({ name, type }) => name === checkpoint.origin && type === ED25519);
  must(signersOf(note, keys).size > 0, "a checkpoint that its log did not sign");
  return checkpoint;
}

function checkCheckpoint({ vkeys }, { note, origin, root, size }, vector) {
  const found = openCheckpoint(Buffer.from(note), vkeys);
  return accepted(vector, found.origin === origin && same(found.root, root) && found.size === size);
}

function checkCosignature({ vkeys }, { note, cosigned_at: time }, vector) {
  const keys = vkeys.map(verifierKey);
  must(keys.every(({ type }) => type === COSIGNATURE), "no witness's key");
  const parsed = parseNote(Buffer.from(note));
  checkpointOf(parsed);
  const times = [...signersOf(parsed, keys).values()];
  return times.length > 0 && accepted(vector, times.includes(time));
}

function checkOrigin({ origin }, { deployment, log }, vector) {
  const found = ledgerOf(origin);
  return found !== null && accepted(vector, found.deployment === deployment && found.log === log);
}

function checkProof({ entry, vkeys }, { proof }) {
  const { index, path, note } = parseProof(Buffer.from(proof));
  const { size, root } = openCheckpoint(note, vkeys);
  return included(hashLeaf(hex(entry)), index, size, path, root);
}

function checkPolicy({ cosigned_by: names }, output) {
  const policy = parsePolicy(Buffer.from(output.policy));
  return policy.quorum(new Set(policy.witnesses.filter(({ name }) => names.includes(name))));
}

function checkCertificate({ enrolment, writer_id: id, public_key: key }, { certificate }) {
  const message = Buffer.concat([tag("writer"), hex(id, 16), hex(key, 32)]);
  return signed(hex(enrolment, 32), hex(certificate), message);
}

function checkRetirement({ writer_id: id, log, index }, { note }) {
  checkNote("key.retired", note);
  return !retiredAt(note, id, log, index);
}

function checkErasure({ erasure }, { note }) {
  openStatement(note);
  return note.key === erasure;
}

const checkEntry = ({ root, size }, { entry, kind }, vector) =>
  accepted(vector, openEntry(entry, { size, root: hex(root, 32) }).kind === kind);

// The members of a bundle's vector: its own over those of its base, as name -> bytes.
function membersOf({ output }, all) {
  const members = output.base === undefined ? new Map() : membersOf(all.get(output.base), all);
  for (const [name, lines] of Object.entries(output.members)) {
    members.set(name, Buffer.from(lines.map((line) => `${line}\n`).join("")));
  }
  return members;
}

function exitOf(data, input) {
  const policy = input.policy === null ? null : unlessRefused(() => parsePolicy(Buffer.from(input.policy)));
  if (policy === null && input.policy !== null) return { code: 4, told: "no policy", crashed: false };
  return answer(data, policy, { now: input.now, maxAgeSeconds: input.max_age_seconds });
}

function checkBundle(input, output, vector, all) {
  const data = output.tar === undefined ? writeTar(membersOf(vector, all)) : base64(output.tar);
  if (output.tar_sha256 !== undefined && !same(sha256(data), output.tar_sha256)) return "another tar";
  const { code, told, crashed } = exitOf(data, input);
  if (crashed) return `crashed: ${told}`;
  if (code !== output.exit) return `exit ${code} and not ${output.exit}: ${told}`;
  return code === 0 || code === 2;
}

const BUNDLE = "max_age_seconds now policy ->";
export const LOG_KINDS = {
  bundle: {
    shapes: [`${BUNDLE} exit members tar_sha256`, `${BUNDLE} base exit members tar_sha256`, `${BUNDLE} exit tar`],
    check: checkBundle,
  },
  certificate: { shapes: ["enrolment public_key writer_id -> certificate"], check: checkCertificate },
  checkpoint: { shapes: ["vkeys -> note origin root size"], check: checkCheckpoint },
  consistency: {
    shapes: ["old_root old_size root size -> proof"],
    check: (input, { proof }) =>
      consistent(input.old_size, hex(input.old_root, 32), input.size, hex(input.root, 32), hashes(proof)),
  },
  cosignature: { shapes: ["vkeys -> cosigned_at note"], check: checkCosignature },
  entry: { shapes: ["root size -> entry kind"], check: checkEntry },
  erasure: { shapes: ["erasure -> note"], check: checkErasure },
  inclusion: {
    shapes: ["index leaf_hash root size -> proof"],
    check: (input, { proof }) =>
      included(hex(input.leaf_hash, 32), input.index, input.size, hashes(proof), hex(input.root, 32)),
  },
  leaf: {
    shapes: ["chain log run seq -> leaf_data leaf_hash"],
    check: (input, output) => same(leafOf(input), output.leaf_data) && same(hashLeaf(leafOf(input)), output.leaf_hash),
  },
  note: { shapes: ["vkeys -> note signed_by"], check: checkNoteFile },
  header: {
    shapes: [" -> header"],
    check: (_, { header }) => {
      parseHeader(hex(header));
      return true;
    },
  },
  origin: { shapes: ["origin -> deployment log"], check: checkOrigin },
  policy: { shapes: ["cosigned_by -> policy"], check: checkPolicy },
  proof: { shapes: ["entry vkeys -> proof"], check: checkProof },
  retirement: { shapes: ["index log writer_id -> note"], check: checkRetirement },
  root: {
    shapes: ["entries -> root"],
    check: ({ entries }, { root }) => same(treeRoot(hashes(entries).map(hashLeaf)), root),
  },
  rotation: {
    shapes: [" -> note"],
    check: (_, { note }) => {
      checkRotation(note);
      return true;
    },
  },
  tile: { shapes: ["level n size -> sha256 width"], check: checkTile },
};
