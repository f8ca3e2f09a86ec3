// Headers and the chain of one run, record by record (docs/ledger-format.md sections 3, 4, 5 and 8).
import { chainHash, commitment, genesis, recordHash } from "./hashes.mjs";
import {
  ACTOR, canonical, count, exactly, hexOf, integer, KIND, listOf, mapOf, maybe, moment, must, parsed, sameNames,
  string, text, utf8,
} from "./json.mjs";

export const FIELDS = [null, "task", "request", "reply", "call", "result", "output", "features", "note"];
export const fieldName = (name) => FIELDS.indexOf(name) > 0;
const MAX_HEADER_BYTES = 8192;
const CODE = /^[a-z0-9_.:-]{1,128}$/;
const NAME = /^[a-zA-Z0-9_.:-]{1,128}$/;
const anything = () => true;

const POLICY = exactly({
  id: text(/^[a-z0-9_.-]{1,64}$/), ver: integer, digest: hexOf(32), verdict: string, rules: listOf(string),
});
const SCRUB = exactly({
  counts: mapOf((name) => KIND.test(name), integer), engine: anything, hmac_key: anything, mode: anything,
  ms: anything, ner: anything, policy: anything, rules: anything, status: anything, unscanned: anything,
});
const HEADER = exactly({
  v: (value) => value === 1,
  log: hexOf(16),
  run: hexOf(16),
  seq: count,
  epoch: count,
  kind: text(KIND),
  ts: moment,
  event_id: hexOf(16),
  nonce: hexOf(16),
  actor: text(ACTOR),
  writer: hexOf(16),
  intent: maybe(count),
  parent: maybe(hexOf(16)),
  policy: maybe(POLICY),
  model: maybe(text(NAME)),
  engine: maybe(text(NAME)),
  tool: maybe(hexOf(32)),
  usage: maybe(exactly({ cost_micros: count, input_tokens: count, output_tokens: count })),
  outcome: maybe(text(CODE)),
  sandbox: maybe(text(CODE)),
  approval: maybe(hexOf(16)),
  scrub: maybe(SCRUB),
  size: mapOf(fieldName, count),
  commit: mapOf(fieldName, hexOf(32)),
});

export function parseHeader(data) {
  must(data.length <= MAX_HEADER_BYTES, "a header that is too long");
  const source = utf8(data);
  const header = parsed(source);
  must(canonical(header) === source, "a header that is not canonical");
  must(HEADER(header), "a header with other members");
  must(header.intent === null || header.intent < header.seq, "an intent that comes later");
  must(sameNames(header.size, header.commit), "sizes of other fields than the commitments");
  return header;
}

// Walks one run from its beginning. A record has seq, header (bytes, or null when erased), rc, chain
// and columns (epoch, kind, ts); `next` checks one record and gives its header.
export class ChainWalk {
  constructor(log, run) {
    Object.assign(this, { log, run, seq: 0, epoch: 0, previous: genesis(log, run) });
  }

  next(record) {
    must(record.seq === this.seq, `record ${this.seq}: a gap before it`);
    const header = record.header === null ? this.erased(record) : this.stored(record);
    must(chainHash(this.previous, this.seq, record.rc).equals(record.chain), `record ${this.seq}: its chain hash`);
    this.previous = record.chain;
    this.seq += 1;
    return header;
  }

  erased({ columns }) {
    const gone = Object.values(columns).every((value) => value === null);
    must(gone, `record ${this.seq}: columns of a header that is gone`);
    return null;
  }

  stored(record) {
    const header = parseHeader(record.header);
    const told = { log: this.log.toString("hex"), run: this.run.toString("hex"), seq: this.seq, ...record.columns };
    for (const [name, value] of Object.entries(told)) {
      must(header[name] === value, `record ${this.seq}: ${name} is not what its header says`);
    }
    must(header.epoch >= this.epoch, `record ${this.seq}: the epoch fell`);
    must(recordHash(record.header).equals(record.rc), `record ${this.seq}: its record hash`);
    this.epoch = header.epoch;
    return header;
  }
}

export const bitLength = (number) => (number === 0 ? 0 : number.toString(2).length);

// The name of a payload whose commitment is in the header.
export function checkPayload(log, run, header, { seq, field, salt, value }) {
  const name = FIELDS[field];
  must(fieldName(name) && header !== null, `record ${seq}: a payload that nothing commits to`);
  const made = commitment(log, run, seq, name, salt, value).toString("hex");
  must(header.commit[name] === made, `record ${seq}: ${name} is not what its commitment says`);
  must(header.size[name] === bitLength(value.length), `record ${seq}: ${name} is of another size than its header says`);
  return name;
}
