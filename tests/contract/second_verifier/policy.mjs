// A verifier's policy file: C2SP tlog-policy with the lines of section 11 of docs/ledger-format.md.
import { decimal, must } from "./json.mjs";
import { COSIGNATURE, ED25519, verifierKey } from "./notes.mjs";

// Octets, not characters: a name is whatever its bytes are. Only a key's name is UTF-8.
const keyIn = (word, type) => {
  const key = verifierKey(Buffer.from(word ?? "", "latin1").toString("utf8"));
  must(key.type === type, "a key of another type");
  return key;
};

class Reader {
  constructor() {
    this.policy = { logs: [], witnesses: [], enrolment: [], erasure: [], quorum: null, asksNobody: false };
    this.names = new Map(); // of witnesses and groups: a predicate over the set of keys that cosigned
    this.members = new Set(); // names that already are in a group
    this.uses = new Map(); // public key -> what it is used for
    this.logLines = new Set(); // public keys of `log` lines, of which each may have one
  }

  use(key, purpose, again = false) {
    const hex = key.publicKey.toString("hex");
    const before = this.uses.get(hex);
    must(before === undefined || (again && before === purpose), "a key with two uses");
    this.uses.set(hex, purpose);
    return key;
  }

  define(name, predicate) {
    must(name !== undefined && name !== "none" && !this.names.has(name), "a name that is taken");
    this.names.set(name, predicate);
  }

  // `#meshflow/v1 enrolment|erasure|log <vkey>`
  ours([mark, role, word, ...more]) {
    must(mark === "#meshflow/v1" && more.length === 0, "a line of ours that nobody knows");
    const key = keyIn(word, ED25519);
    if (role === "log") this.policy.logs.push(this.use(key, "log", true));
    else {
      must(role === "enrolment" || role === "erasure", "a pin for an unknown purpose");
      this.policy[role].push(this.use(key, role));
    }
  }

  log([word, ...more]) {
    must(more.length <= 1, "log: too many words");
    const key = keyIn(word, ED25519);
    must(!this.logLines.has(key.publicKey.toString("hex")), "log: a key twice");
    this.logLines.add(key.publicKey.toString("hex"));
    this.policy.logs.push(this.use(key, "log", true));
  }

  witness([name, word, ...more]) {
    must(more.length <= 1, "witness: too many words");
    const key = this.use(keyIn(word, COSIGNATURE), "witness");
    this.define(name, (cosigners) => cosigners.has(key));
    this.policy.witnesses.push(key);
  }

  group([name, how, ...members]) {
    must(members.length > 0, "group: no members");
    const parts = members.map((member) => {
      must(this.names.has(member) && !this.members.has(member), "group: an unknown member, or one of two groups");
      this.members.add(member);
      return this.names.get(member);
    });
    const least = how === "all" ? parts.length : how === "any" ? 1 : decimal(how);
    must(least >= 1 && least <= parts.length, "group: more than there are, or none");
    this.define(name, (cosigners) => parts.filter((part) => part(cosigners)).length >= least);
  }

  quorum([name, ...more]) {
    must(this.policy.quorum === null && more.length === 0, "quorum: twice");
    this.policy.asksNobody = name === "none";
    this.policy.quorum = this.policy.asksNobody ? () => true : this.names.get(name) ?? null;
    must(this.policy.quorum !== null, "quorum: an unknown name");
  }
}

export function parsePolicy(data) {
  const source = data.toString("latin1");
  must(!/[\0-\x08\x0b-\x1f\x7f]/.test(source), "a control character");
  must(source.endsWith("\n"), "a last line without its end");
  const reader = new Reader();
  for (const whole of source.slice(0, -1).split("\n")) {
    const line = whole.replace(/^[ \t]+|[ \t]+$/g, "");
    const [what, ...words] = line.split(/[ \t]+/);
    if (line.startsWith("#meshflow/")) reader.ours([what, ...words]);
    else if (line === "" || line.startsWith("#")) continue;
    else {
      must(["log", "witness", "group", "quorum"].includes(what), "a line of an unknown kind");
      reader[what](words);
    }
  }
  must(reader.policy.quorum !== null, "no quorum");
  return reader.policy;
}
