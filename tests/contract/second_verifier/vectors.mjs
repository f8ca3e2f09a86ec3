// `node vectors.mjs DIRECTORY`: every vector of DIRECTORY/*.json and DIRECTORY/log/*.json; 1 if one fails or is unknown.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { exactly, Refused } from "./json.mjs";
import { LOG_KINDS } from "./vectors_log.mjs";
import { RUN_KINDS } from "./vectors_run.mjs";

const VECTOR = exactly({
  name: (value) => typeof value === "string", valid: (value) => typeof value === "boolean",
  input: () => true, output: () => true,
});

// What is wrong with a vector, or null. A kind gives true (it follows), false or a refusal (it does not).
function wrong(kind, vector, all) {
  if (!VECTOR(vector)) return "a vector of another shape";
  const { input, output, valid } = vector;
  const told = [Object.keys(input), Object.keys(output)].map((names) => names.sort().join(" ")).join(" -> ");
  if (!kind.shapes.includes(told)) return `a vector of an unknown shape: ${told}`;
  let follows;
  try {
    follows = kind.check(input, output, vector, all);
  } catch (error) {
    if (!(error instanceof Refused)) return error.stack;
    follows = false;
  }
  if (typeof follows === "string") return follows;
  return follows === valid ? null : `is ${valid ? "refused" : "accepted"}`;
}

function runFile(directory, name, kinds, print) {
  const path = join(directory, name);
  const kind = kinds[name.replace(/\.json$/, "")];
  const { format, vectors } = JSON.parse(readFileSync(path, "utf8"));
  if (kind === undefined || format !== "ledger/v1" || !Array.isArray(vectors) || vectors.length === 0) {
    print(`FAIL ${name}: an unknown kind of file`);
    return { passed: 0, failed: 1 };
  }
  const all = new Map(vectors.map((vector) => [vector.name, vector]));
  const failures = vectors.map((vector) => [vector.name, wrong(kind, vector, all)]).filter(([, why]) => why !== null);
  if (all.size !== vectors.length) failures.push(["names", "a name twice"]);
  for (const [vector, why] of failures) print(`FAIL ${name}: ${vector}: ${why}`);
  const refused = vectors.filter(({ valid }) => valid === false).length;
  print(`${path}: ${vectors.length - refused} that hold, ${refused} that do not, ${failures.length} failed`);
  return { passed: vectors.length - failures.length, failed: failures.length };
}

function main(directory) {
  const totals = { passed: 0, failed: 0 };
  for (const [folder, kinds] of [[directory, RUN_KINDS], [join(directory, "log"), LOG_KINDS]]) {
    const names = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith(".json")).sort() : [];
    for (const name of names) {
      const { passed, failed } = runFile(folder, name, kinds, console.log);
      totals.passed += passed;
      totals.failed += failed;
    }
    for (const missing of Object.keys(kinds).filter((kind) => !names.includes(`${kind}.json`))) {
      console.log(`FAIL ${join(folder, missing)}.json: is not there`);
      totals.failed += 1;
    }
  }
  console.log(`${totals.passed} passed, ${totals.failed} failed`);
  return totals.failed === 0 ? 0 : 1;
}

process.exitCode = main(process.argv[2] ?? "");
