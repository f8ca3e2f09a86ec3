// The container of an export bundle (docs/ledger-format.md section 13): ustar, nine members, nothing else.
export const MEMBERS = [
  "manifest.json", "records.jsonl", "payloads.jsonl", "batches.jsonl", "writers.jsonl", "checkpoint.note",
  "anchor.json", "operator.note", "administration.jsonl",
];
export class Unusable extends Error {}
const BLOCK = 512;
const MAX_BYTES = 1 << 28;
const zero = (data) => data.every((byte) => byte === 0);
const blocks = (size) => Math.ceil(size / BLOCK) * BLOCK;

function usable(holds, reason) {
  if (!holds) throw new Unusable(reason);
}

// Octal digits and then NULs, no digits at all standing for 0.
function octal(field) {
  const digits = /^([0-7]*)\0*$/.exec(field.toString("latin1"));
  return digits === null ? NaN : parseInt(digits[1] || "0", 8);
}

function checkHead(head, name) {
  usable(head.subarray(0, name.length).equals(Buffer.from(name)) && zero(head.subarray(name.length, 100)), "a member");
  const sum = Buffer.from(head).fill(0x20, 148, 156).reduce((total, byte) => total + byte, 0);
  const told = Buffer.from(head.subarray(148, 156)).map((byte) => (byte === 0x20 ? 0 : byte)); // spaces may end it
  usable(octal(told) === sum, `${name}: the checksum`);
  usable(head[156] === 0x30 && zero(head.subarray(157, 257)), `${name}: not a plain file`);
  usable(head.subarray(257, 265).toString("latin1") === "ustar\x0000", `${name}: not ustar`);
  const plain = octal(head.subarray(100, 108)) === 0o644 && octal(head.subarray(108, 116)) === 0 &&
    octal(head.subarray(116, 124)) === 0 && octal(head.subarray(136, 148)) === 0;
  usable(plain && zero(head.subarray(265, 329)) && zero(head.subarray(345)), `${name}: mode, owner, time or prefix`);
  for (const device of [head.subarray(329, 337), head.subarray(337, 345)]) {
    usable(octal(device) === 0, `${name}: a device number`);
  }
}

// The members in their order, as name -> bytes.
export function readTar(data) {
  usable(data.length <= MAX_BYTES && data.length % BLOCK === 0, "too large, or no tar");
  const members = new Map();
  let at = 0;
  for (const name of MEMBERS) {
    usable(at + BLOCK <= data.length, `${name} is missing`);
    const head = data.subarray(at, at + BLOCK);
    checkHead(head, name);
    const [size, start] = [octal(head.subarray(124, 136)), at + BLOCK];
    usable(Number.isSafeInteger(size) && start + blocks(size) <= data.length, `${name}: its size`);
    usable(zero(data.subarray(start + size, start + blocks(size))), `${name}: its padding`);
    members.set(name, data.subarray(start, start + size));
    at = start + blocks(size);
  }
  usable(data.length - at >= 2 * BLOCK && zero(data.subarray(at)), "more members, or no end");
  return members;
}

const inOctal = (number, digits) => `${number.toString(8).padStart(digits, "0")}\0`;

function tarHead(name, size) {
  const fields = [[0, name], [100, inOctal(0o644, 7)], [108, inOctal(0, 7)], [116, inOctal(0, 7)], [124, inOctal(size, 11)],
    [136, inOctal(0, 11)], [148, " ".repeat(8)], [156, "0"], [257, "ustar\0"], [263, "00"]];
  const head = Buffer.alloc(512);
  for (const [at, written] of fields) head.write(written, at, "latin1");
  const sum = head.reduce((total, byte) => total + byte, 0);
  head.write(`${inOctal(sum, 6)} `, 148, "latin1");
  return head;
}

const padded = (length, block) => Buffer.alloc((block - (length % block)) % block);

// The same container, written: members as name -> bytes.
export function writeTar(members) {
  const parts = [];
  for (const name of MEMBERS) {
    const data = members.get(name);
    parts.push(tarHead(name, data.length), data, padded(data.length, 512));
  }
  const tar = Buffer.concat([...parts, Buffer.alloc(1024)]);
  return Buffer.concat([tar, padded(tar.length, 10240)]);
}
