// Canonical JSON, shapes and encodings (docs/ledger-format.md sections 2, 4 and 13). What does not fit is Refused.
export class Refused extends Error {}

export function must(holds, reason) {
  if (!holds) throw new Refused(reason);
}

// What `make` gives, or null when it refuses; any other error stays one.
export function unlessRefused(make) {
  try {
    return make();
  } catch (error) {
    if (error instanceof Refused) return null;
    throw error;
  }
}

export function utf8(data) {
  const source = data.toString("utf8");
  must(Buffer.from(source, "utf8").equals(data), "not UTF-8");
  return source;
}

export function base64(source, bytes) {
  must(typeof source === "string", "not base64");
  const data = Buffer.from(source, "base64");
  must(data.toString("base64") === source, "not base64 in its one form");
  must(bytes === undefined || data.length === bytes, "base64 of another length");
  return data;
}

export function hex(source, bytes) {
  must(typeof source === "string" && /^([0-9a-f]{2})*$/.test(source), "not lower-case hex");
  must(bytes === undefined || source.length === 2 * bytes, "hex of another length");
  return Buffer.from(source, "hex");
}

export function decimal(source) {
  must(/^(0|[1-9][0-9]*)$/.test(source) && Number.isSafeInteger(Number(source)), "not a plain number");
  return Number(source);
}

const LONE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;

function written(source) {
  must(!LONE.test(source), "a lone surrogate");
  return JSON.stringify(source);
}

// By code point, which is the order of the UTF-8 bytes and not that of JavaScript's UTF-16 units.
const byCodePoint = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b));

const HEADERS = { depth: 6, keys: /^[a-z0-9_.]{1,64}$/, floats: false };
export const FREE_KEYS = { depth: 6, keys: /^/, floats: false };
export const VALUES = { depth: 64, keys: /^/, floats: true };

export function canonical(value, rules = HEADERS) {
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "string") return written(value);
  if (typeof value === "number") {
    const whole = Number.isSafeInteger(value) && !Object.is(value, -0);
    must(whole || (rules.floats && Number.isFinite(value)), "a number outside the profile");
    return String(value);
  }
  must(rules.depth > 0, "nested too deeply");
  const inner = { ...rules, depth: rules.depth - 1 };
  if (Array.isArray(value)) return `[${value.map((item) => canonical(item, inner)).join(",")}]`;
  const names = Object.keys(value).sort(byCodePoint);
  must(names.every((name) => rules.keys.test(name)), "a key outside the profile");
  return `{${names.map((name) => `${written(name)}:${canonical(value[name], inner)}`).join(",")}}`;
}

// Parsed, and written again the same: that also tells members that stand twice.
export function parsed(source, rules = FREE_KEYS) {
  let value;
  try {
    value = JSON.parse(source);
  } catch {
    throw new Refused("not JSON");
  }
  must(canonical(value, rules) === source, "not canonical JSON");
  return value;
}

// Shapes: a check of a value, made of checks of its parts.
export const text = (pattern) => (value) => typeof value === "string" && pattern.test(value);
export const string = (value) => typeof value === "string";
export const integer = (value) => Number.isSafeInteger(value);
export const count = (value) => Number.isSafeInteger(value) && value >= 0;
export const maybe = (check) => (value) => value === null || check(value);
export const listOf = (check) => (value) => Array.isArray(value) && value.every(check);
export const object = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
export const sameNames = (one, other) => Object.keys(one).sort().join() === Object.keys(other).sort().join();
export const exactly = (checks) => (value) =>
  object(value) && sameNames(value, checks) && Object.entries(checks).every(([name, check]) => check(value[name]));
export const mapOf = (names, check) => (value) =>
  object(value) && Object.entries(value).every(([name, item]) => names(name) && check(item));

export const hexOf = (bytes) => text(new RegExp(`^[0-9a-f]{${2 * bytes}}$`));
export const KIND = /^[a-z0-9_.]{1,64}$/;
export const ACTOR = /^(key:[0-9a-f]{16}|system|model|tool|operator)$/;

// Digits in these places; no calendar is asked.
export const moment = text(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$/);
