#!/bin/sh
# The lanes that work on what is shipped: the wheel twice, the wheel alone, the API document, the published
# vectors, the documentation in a browser, a rolling restart behind nginx, the sandbox in a pod.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

say() { echo "== $*"; }

say "the same tree gives the same wheel, byte for byte"
# The time of the last commit, or a fixed one where there is no history: any constant would do.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 1700000000)
export SOURCE_DATE_EPOCH
"$python" -m venv "$work/builder"
for turn in first second; do
  "$work/builder/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps \
    --no-cache-dir --wheel-dir "$work/$turn" .
done
wheel=$(cd "$work/first" && ls meshflow-*.whl)
cmp "$work/first/$wheel" "$work/second/$wheel"
echo "$wheel"

say "the wheel alone, installed by pip, starts away from the tree"
"$python" -m venv "$work/user"
"$work/user/bin/python" -m pip install --quiet --disable-pip-version-check "$work/first/$wheel"
(cd "$work" && "$work/user/bin/meshflow" --help >"$work/help")
grep -q meshflow "$work/help"

say "the committed API document is the one this code makes"
.venv/bin/meshflow openapi --write "$work/openapi.json"
diff -u openapi/openapi.json "$work/openapi.json" || {
  echo "openapi/openapi.json is stale: run 'make openapi' and read the difference" >&2
  exit 1
}

say "a second verifier agrees with every vector"
command -v node >/dev/null 2>&1 || {
  echo "node is missing: install Debian's nodejs (18 or later)" >&2
  exit 1
}
node --version
node tests/contract/second_verifier/vectors.mjs tests/contract/vectors

say "both verifiers answer bundles that no vector has as the ledger's page demands"
node tests/contract/second_verifier/forged.mjs "$work/forged"
while read -r code name; do
  answer=0
  "$work/user/bin/meshflow" verify-bundle "$work/forged/$name.tar" --policy "$work/forged/policy" \
    >"$work/told" 2>&1 </dev/null || answer=$?
  test "$answer" = "$code" || {
    echo "meshflow verify-bundle answers $answer and not $code: $name" >&2
    cat "$work/told" >&2
    exit 1
  }
done <"$work/forged/expected"

say "the second verifier accepts a live export with a witness, and no altered copy of it"
.venv/bin/python -m tests.contract.second_verifier.live_export

say "Swagger UI works in a browser under its policy, and asks nobody else"
.venv/bin/python -m tests.browser.docs_page

say "the alerts are rules for Prometheus, and fire when they should"
command -v promtool >/dev/null 2>&1 || {
  echo "promtool is missing: install Debian's prometheus" >&2
  exit 1
}
promtool check rules docs/operations/alerts.yml
promtool test rules docs/operations/alerts_test.yml

say "two servers are restarted one after the other behind nginx, and no request fails"
.venv/bin/python -m bench.rolling_bench

say "the sandbox holds in a pod: no capability, read-only root, the container runtime's own filter"
test "$(id -u)" = 0 || {
  echo "the pod needs root: it makes namespaces" >&2
  exit 1
}
.venv/bin/python -m tests.pod.enter_pod "$PWD/.venv/bin/python" -m pytest -q -p no:cacheprovider \
  -p tests.support.no_skips tests/security/test_native_escapes.py tests/security/test_monty_escapes.py \
  tests/security/test_benign_monty.py tests/security/test_language_escapes.py tests/security/test_calculator_abuse.py \
  tests/security/test_benign_programs.py tests/security/test_shell_escapes.py tests/security/test_benign_shell.py \
  tests/security/test_workspace_confinement.py tests/security/test_ssrf.py tests/security/test_kept_files.py \
  tests/integration/sandbox tests/unit/sandbox

echo "== all lanes passed"
