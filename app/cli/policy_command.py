"""`meshflow policy`: policies as files, read and tried here, brought into force by a server."""

import json
import sys
import time
from argparse import Namespace
from pathlib import Path

from app.bundles.bundle_loading import BundleLoader
from app.bundles.policy_document import MAX_DOCUMENT_BYTES, PolicyDocument, parse_document
from app.cli.http_client import ApiClient, ProblemError, api_client, plain, text_of
from app.cli.invocation import FAILED, OK, USAGE, CommandError, Invocation
from app.domain.errors import PolicyRefusedError
from app.domain.run import Json, JsonObject
from app.policy.decide import decide

PENDING = 3
_NOT_FOUND = 404


def policy(invocation: Invocation, arguments: Namespace) -> int:
    """0 when all is well, 1 when a policy is not, 3 when another key has to confirm it."""
    try:
        match arguments.action:
            case "lint":
                return _lint(arguments.file)
            case "test":
                return _test(arguments.file)
            case "simulate":
                with api_client(invocation, arguments) as api:
                    return _simulate(api, arguments)
            case "activate":
                with api_client(invocation, arguments) as api:
                    return _activate(api, arguments)
            case _:
                with api_client(invocation, arguments) as api:
                    return _confirm(api, arguments)
    except PolicyRefusedError as error:
        for part in error.parts:
            sys.stderr.write(plain(f"{part.pointer or '/'}: {part.reason}\n"))
        raise CommandError("this policy cannot be taken in") from None


def _lint(file: Path) -> int:
    loaded = _loader().taken(_read(file))
    print(f"{loaded.document.id}: {loaded.bundle.digest}")
    asked = {case.question.point for case in loaded.bundle.golden}
    for rule in loaded.bundle.tenant_rules:
        if rule.point not in asked:
            sys.stderr.write(f"{rule.rule_id}: no golden case at {rule.point.value}\n")
    return OK


def _test(file: Path) -> int:
    loader = _loader()
    results = loader.golden(loader.loaded(_read(file)).bundle)
    for result in results:
        said = f"{result.found.value} ({result.code})"
        wanted = "" if result.is_kept else f", wants {result.expected.value}"
        print(f"{'ok' if result.is_kept else 'NOT'}  {result.name}: {said}{wanted}")
    broken = sum(not result.is_kept for result in results)
    print(f"{len(results) - broken} of {len(results)} golden cases are kept")
    return FAILED if broken else OK


def _simulate(api: ApiClient, arguments: Namespace) -> int:
    asked: JsonObject = {"bundle": _as_json(_read(arguments.file)), "filter": {}}
    for name in ("since", "until"):
        if getattr(arguments, name) is not None:
            asked[name] = getattr(arguments, name)
    if arguments.agent is not None:
        asked["filter"] = {"agent": arguments.agent}
    found = api.post("/v1/policies/simulate", asked)
    if arguments.json:
        print(json.dumps(found, sort_keys=True))
        return OK
    for name in ("runs", "not_replayable", "decisions", "differences", "weakened", "newly_asking"):
        print(f"{name:<16} {found.get(name)}")
    for row in (*_rows(found, "points"), *_rows(found, "rules")):
        if row.get("before") != row.get("after"):
            change = f"{text_of(row, 'before')} -> {text_of(row, 'after')}"
            print(plain(f"{text_of(row, 'name'):<24} {change}: {row.get('count')}"))
    for row in _rows(found, "first_divergences"):
        change = f"{text_of(row, 'before')} -> {text_of(row, 'after')}"
        print(plain(f"{text_of(row, 'run_id')} seq {row.get('seq')}: {change}"))
    return OK


def _activate(api: ApiClient, arguments: Namespace) -> int:
    document = _read(arguments.file)
    _loader().taken(document)  # what is amiss is told here, part by part
    name = arguments.id or document.id
    place = f"/v1/policies/{name}"
    body = {key: value for key, value in _as_json(document).items() if key != "id"}
    stored = api.put(place, body, _meant(api, place))
    made = api.post(f"{place}/activations", {"version": stored.get("version")})
    return _told(made)


def _confirm(api: ApiClient, arguments: Namespace) -> int:
    place = f"/v1/policies/{arguments.policy}/activations/{arguments.activation}"
    return _told(api.post(f"{place}/confirm", {}))


def _told(made: JsonObject) -> int:
    name, state = text_of(made, "policy"), text_of(made, "state")
    print(plain(f"{name} version {made.get('version')} {text_of(made, 'digest')}: {state}"))
    if state != "pending":
        return OK
    loosened = made.get("loosened")
    codes = ", ".join(map(str, loosened)) if isinstance(loosened, list) else ""
    sys.stderr.write(plain(f"it loosens {codes}: with another key of the scope policy, say\n"))
    sys.stderr.write(plain(f"  meshflow policy confirm {name} {text_of(made, 'id')}\n"))
    return PENDING


def _meant(api: ApiClient, place: str) -> dict[str, str]:
    try:
        newest = api.get(place)
    except ProblemError as error:
        if error.status == _NOT_FOUND:
            return {}
        raise
    return {"If-Match": f'"{newest.get("version")}"'}


def _rows(found: JsonObject, name: str) -> list[dict[str, Json]]:
    rows = found.get(name)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _loader() -> BundleLoader:
    return BundleLoader(decide, time.thread_time_ns)


def _read(file: Path) -> PolicyDocument:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_DOCUMENT_BYTES + 1)
    except OSError:
        raise CommandError("the policy's file cannot be read", USAGE) from None
    return parse_document(data, is_toml=file.suffix == ".toml")


def _as_json(document: PolicyDocument) -> JsonObject:
    plain_form: JsonObject = document.model_dump(mode="json", exclude_defaults=True)
    return plain_form
