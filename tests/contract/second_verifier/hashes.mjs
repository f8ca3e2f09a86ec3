// The hashes, ciphers, signatures and trees of ledger/v1 (docs/ledger-format.md sections 1, 4, 5, 6, 9 and 11).
import { createCipheriv, createDecipheriv, createHash, createHmac, createPublicKey, hkdfSync, verify } from "node:crypto";

export const EMPTY = Buffer.alloc(0);
export const sha256 = (...parts) => parts.reduce((h, p) => h.update(p), createHash("sha256")).digest();
export const tag = (name) => Buffer.from(`meshflow-ledger/v1/${name}\0`, "ascii");

export function u16(number) {
  const out = Buffer.alloc(2);
  out.writeUInt16BE(number);
  return out;
}
export function u32(number) {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(number);
  return out;
}
export function u64(number) {
  const out = Buffer.alloc(8);
  out.writeBigUInt64BE(BigInt(number));
  return out;
}
export const prefixed = (data) => Buffer.concat([u32(data.length), data]);

export function commitment(log, run, seq, name, salt, value) {
  const parts = [log, run].map(prefixed);
  const named = [Buffer.from(name, "ascii"), salt, value].map(prefixed);
  return sha256(tag("field"), ...parts, u64(seq), ...named);
}
export const recordHash = (header) => sha256(tag("record"), prefixed(header));
export const genesis = (log, run) => sha256(tag("genesis"), prefixed(log), prefixed(run));
export const chainHash = (previous, seq, record) => sha256(tag("chain"), previous, u64(seq), record);
export const batchEntry = (run, seq, chain) => Buffer.concat([run, u64(seq), chain]);
export const batchMessage = (log, batchId, count, root) =>
  Buffer.concat([tag("batch"), log, batchId, u32(count), root]);
export const leafData = (log, run, seq, chain) =>
  Buffer.concat([tag("leaf"), prefixed(log), prefixed(run), u64(seq), chain]);


// Section 4: the stored blob of one field, and what it opens to (null when it does not open).
const boundTo = ({ log, run, seq, number }) => Buffer.concat([log, run, u64(seq), u16(number)]);

export function sealBlob(key, place, nonce, plain) {
  const cipher = createCipheriv("aes-256-gcm", key, nonce);
  cipher.setAAD(boundTo(place));
  return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

export function openBlob(key, place, blob) {
  if (blob.length < 12 + 32 + 16) return null;
  const cipher = createDecipheriv("aes-256-gcm", key, blob.subarray(0, 12), { authTagLength: 16 });
  cipher.setAAD(boundTo(place));
  cipher.setAuthTag(blob.subarray(-16));
  try {
    const plain = Buffer.concat([cipher.update(blob.subarray(12, -16)), cipher.final()]);
    return { salt: plain.subarray(0, 32), value: plain.subarray(32) };
  } catch {
    return null;
  }
}

// Section 6.
export function keyedDigest(runKey, purpose, data) {
  const key = Buffer.from(hkdfSync("sha256", runKey, EMPTY, "meshflow/digest/v1", 32));
  return createHmac("sha256", key).update(prefixed(Buffer.from(purpose, "ascii"))).update(prefixed(data)).digest();
}

// RFC 6962 section 2.1.
export const hashLeaf = (data) => sha256(Buffer.from([0]), data);
export const hashChildren = (left, right) => sha256(Buffer.from([1]), left, right);

export function treeRoot(leaves) {
  if (leaves.length === 0) return sha256(EMPTY);
  if (leaves.length === 1) return leaves[0];
  let split = 1;
  while (split * 2 < leaves.length) split *= 2;
  return hashChildren(treeRoot(leaves.slice(0, split)), treeRoot(leaves.slice(split)));
}

const half = (number) => Math.floor(number / 2);
const odd = (number) => number % 2 === 1;

// RFC 9162 section 2.1.3.2.
export function included(leaf, index, size, proof, root) {
  if (!Number.isSafeInteger(index) || !Number.isSafeInteger(size)) return false;
  if (index < 0 || index >= size || proof.some((hash) => hash.length !== 32)) return false;
  let [node, last, hash] = [index, size - 1, leaf];
  for (const sibling of proof) {
    if (last === 0) return false;
    if (odd(node) || node === last) {
      hash = hashChildren(sibling, hash);
      while (!odd(node) && node !== 0) [node, last] = [half(node), half(last)];
    } else {
      hash = hashChildren(hash, sibling);
    }
    [node, last] = [half(node), half(last)];
  }
  return last === 0 && hash.equals(root);
}

// RFC 9162 section 2.1.4.2, with the empty tree consistent with every tree.
export function consistent(oldSize, oldRoot, newSize, newRoot, proof) {
  if (oldSize > newSize || proof.some((hash) => hash.length !== 32)) return false;
  if (oldSize === newSize) return proof.length === 0 && oldRoot.equals(newRoot);
  if (oldSize === 0) return proof.length === 0 && oldRoot.equals(sha256(EMPTY));
  const path = [...proof];
  let [node, last] = [oldSize - 1, newSize - 1];
  while (odd(node)) [node, last] = [half(node), half(last)];
  let first = node === 0 ? oldRoot : path.shift();
  if (first === undefined) return false;
  let second = first;
  for (const sibling of path) {
    if (last === 0) return false;
    if (odd(node) || node === last) {
      first = hashChildren(sibling, first);
      second = hashChildren(sibling, second);
      while (!odd(node) && node !== 0) [node, last] = [half(node), half(last)];
    } else {
      second = hashChildren(second, sibling);
    }
    [node, last] = [half(node), half(last)];
  }
  return last === 0 && first.equals(oldRoot) && second.equals(newRoot);
}

const SPKI = Buffer.from("302a300506032b6570032100", "hex"); // RFC 8410: an Ed25519 key in DER

// The y of the points whose order divides 8, with both ways to write 0 and 1: under such a key a
// signature can hold for every text. The sign bit of x does not matter.
const SMALL_ORDER = new Set([
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]);

export function smallOrder(publicKey) {
  const y = Buffer.from(publicKey);
  y[31] &= 0x7f;
  return SMALL_ORDER.has(y.toString("hex"));
}

export function signed(publicKey, signature, message) {
  if (publicKey.length !== 32 || signature.length !== 64 || smallOrder(publicKey)) return false;
  try {
    const key = createPublicKey({ key: Buffer.concat([SPKI, publicKey]), format: "der", type: "spki" });
    return verify(null, message, key, signature);
  } catch {
    return false;
  }
}
