// Signed notes, verifier keys, checkpoints, cosignatures and proofs (C2SP), and their names in a ledger (section 10).
import { EMPTY, sha256, signed, smallOrder } from "./hashes.mjs";
import { base64, decimal, must, utf8 } from "./json.mjs";

export const ED25519 = 0x01;
export const COSIGNATURE = 0x04;
const MAX_NOTE_BYTES = 1 << 16;
const MAX_SIGNATURES = 64;
const goodName = (name) => name.length > 0 && !/[+\p{White_Space}]/u.test(name);

export function keyOf(name, type, publicKey) {
  const id = sha256(Buffer.from(`${name}\n`), Buffer.from([type]), publicKey).subarray(0, 4);
  return { name, type, publicKey, id };
}

// `<name>+<key id>+<base64 of type and key>`; the base64 may hold a plus of its own.
export function verifierKey(source) {
  const [name, id, ...rest] = source.split("+");
  must(rest.length > 0 && goodName(name), "not a verifier key");
  const data = base64(rest.join("+"), 33);
  const key = keyOf(name, data[0], data.subarray(1));
  must([ED25519, COSIGNATURE].includes(key.type) && !smallOrder(key.publicKey), "a key that verifies nothing here");
  must(key.id.toString("hex") === id, "a key id that is not the key's");
  return key;
}

export function parseNote(data) {
  must(data.length <= MAX_NOTE_BYTES, "a note that is too long");
  const source = utf8(data);
  must(!/[\0-\x09\x0b-\x1f]/.test(source), "a control character");
  const cut = source.lastIndexOf("\n\n");
  must(cut > 0 && source.endsWith("\n"), "no text or no signatures");
  const lines = source.slice(cut + 2, -1).split("\n");
  must(lines.length <= MAX_SIGNATURES, "a note with too many signatures");
  const signatures = lines.map((line) => {
    const [dash, name, bytes, ...more] = line.split(" ");
    must(dash === "\u2014" && more.length === 0 && bytes !== undefined && goodName(name), "not a signature line");
    const signature = base64(bytes);
    must(signature.length > 4, "a signature line without a signature");
    return { name, id: signature.subarray(0, 4), bytes: signature.subarray(4) };
  });
  return { text: source.slice(0, cut + 1), signatures };
}

function holds(note, key, bytes) {
  if (key.type === ED25519) return signed(key.publicKey, bytes, Buffer.from(note.text));
  if (bytes.length !== 72 || bytes[0] > 0x7f) return false;
  const message = `cosignature/v1\ntime ${bytes.readBigUInt64BE(0)}\n${note.text}`;
  return signed(key.publicKey, bytes.subarray(8), Buffer.from(message));
}

// The keys that signed, each with its time (of a cosignature: the latest) or null. Unknown lines are
// passed over; a line of a known key that does not hold breaks the note.
export function signersOf(note, keys) {
  const found = new Map();
  for (const line of note.signatures) {
    const key = keys.find((one) => one.name === line.name && one.id.equals(line.id));
    if (key === undefined) continue;
    must(holds(note, key, line.bytes), `a signature of ${key.name} that does not hold`);
    const time = key.type === COSIGNATURE ? Number(line.bytes.readBigUInt64BE(0)) : null;
    found.set(key, time === null ? null : Math.max(time, found.get(key) ?? 0));
  }
  return found;
}

const ORIGIN = /^([a-z0-9.-]+(?:\/[a-z0-9._-]+)*)\/ledger\/([0-9a-f]{32})(?:\/r[1-9][0-9]*)?$/;

// The deployment and the log of an origin, or null when it is no ledger's.
export function ledgerOf(origin) {
  const found = ORIGIN.exec(origin);
  return found === null ? null : { deployment: found[1], log: found[2] };
}

export function checkpointOf(note) {
  const [origin, size, root, ...rest] = note.text.slice(0, -1).split("\n");
  must(origin !== "" && size !== undefined && root !== undefined && rest.length === 0, "not three lines");
  const checkpoint = { origin, size: decimal(size), root: base64(root, 32), ledger: ledgerOf(origin) };
  must(checkpoint.ledger !== null, "an origin that is no ledger's");
  must(checkpoint.size > 0 || checkpoint.root.equals(sha256(EMPTY)), "an empty tree with a root");
  return checkpoint;
}

// tlog-proof: the index, the path and the checkpoint's note (its bytes).
export function parseProof(data) {
  const source = utf8(data);
  const cut = source.indexOf("\n\n");
  must(cut > 0, "no checkpoint");
  const lines = source.slice(0, cut).split("\n");
  must(lines.shift() === "c2sp.org/tlog-proof@v1", "not a tlog-proof");
  if (lines[0]?.startsWith("extra ")) base64(lines.shift().slice(6));
  const index = lines.shift() ?? "";
  must(index.startsWith("index "), "no index");
  const path = lines.map((line) => base64(line, 32));
  return { index: decimal(index.slice(6)), path, note: Buffer.from(source.slice(cut + 2)) };
}
