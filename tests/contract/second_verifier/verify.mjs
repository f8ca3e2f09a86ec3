// `node verify.mjs BUNDLE [--policy P] [--now T] [--max-age-seconds N]`
// 0 all of it holds and is witnessed, 2 holds as far as it goes, 3 something does not hold, 4 unusable input.
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { answer } from "./bundle.mjs";
import { decimal } from "./json.mjs";
import { parsePolicy } from "./policy.mjs";
import { Unusable } from "./tar.mjs";

const OPTIONS = { policy: { type: "string" }, now: { type: "string" }, "max-age-seconds": { type: "string" } };

function inputs() {
  const { values, positionals } = parseArgs({ options: OPTIONS, allowPositionals: true });
  if (positionals.length !== 1) throw new Unusable("one bundle");
  const number = (name) => (values[name] === undefined ? null : decimal(values[name]));
  const maxAgeSeconds = number("max-age-seconds");
  const clock = maxAgeSeconds === null ? null : Math.floor(Date.now() / 1000);
  return {
    data: readFileSync(positionals[0]),
    policy: values.policy === undefined ? null : parsePolicy(readFileSync(values.policy)),
    times: { now: number("now") ?? clock, maxAgeSeconds },
  };
}

function main() {
  let given;
  try {
    given = inputs();
  } catch (error) {
    return { code: 4, told: error.message };
  }
  return answer(given.data, given.policy, given.times);
}

const { code, told } = main();
console.log(told);
process.exitCode = code;
