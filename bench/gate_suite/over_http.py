"""The gate as an agent elsewhere uses it: `/v1/gate/contexts` of a running server."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx2

from bench.gate_suite.gates import OpenContext, Ruling, Said

_SECONDS = 120.0


class GateOverHttp:
    """A client of one tenant, and beside it the key that answers approvals."""

    def __init__(self, url: str, *, key: str, approver_key: str) -> None:
        self._agent = httpx2.Client(base_url=url, headers=_bearer(key), timeout=_SECONDS)
        self._approver = httpx2.Client(
            base_url=url, headers=_bearer(approver_key), timeout=_SECONDS
        )
        self.decide_ms: list[float] = []  # what each call waited for its verdict

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._agent.close()
        self._approver.close()

    def open(self, submission: Mapping[str, Any]) -> OpenContext:
        """A context of its own, under an idempotency key of its own."""
        answer = _posted(self._agent, "/v1/gate/contexts", submission)
        return _Context(self, f"/v1/gate/contexts/{answer['id']}", self._agent, self._approver)


class _Context:
    def __init__(
        self, gate: GateOverHttp, path: str, agent: httpx2.Client, approver: httpx2.Client
    ) -> None:
        self._gate, self._path = gate, path
        self._agent, self._approver = agent, approver
        self._asked: dict[str, str] = {}

    def decide(self, tool: str, arguments: Mapping[str, Any]) -> Ruling:
        began = time.perf_counter()
        said = _posted(
            self._agent, f"{self._path}/decide", {"tool": tool, "arguments": dict(arguments)}
        )
        self._gate.decide_ms.append((time.perf_counter() - began) * 1000)
        if said.get("approval_id"):
            self._asked[said["call_id"]] = said["approval_id"]
        return Ruling(
            call_id=said["call_id"],
            said=Said(said["verdict"]),
            rules=tuple(said["rule_ids"]),
            reasons=tuple(said["reasons"]),
            arguments=said.get("arguments"),
        )

    def approve(self, call_id: str) -> bool:
        return self._answered(call_id, "approve")

    def refuse(self, call_id: str) -> None:
        self._answered(call_id, "deny")

    def _answered(self, call_id: str, decision: str) -> bool:
        path = f"/v1/approvals/{self._asked[call_id]}"
        card = self._approver.get(path)
        card.raise_for_status()
        answer = self._approver.post(
            f"{path}/decision",
            json={"decision": decision, "digest": card.json()["digest"]},
            headers={"Idempotency-Key": uuid4().hex},
        )
        return answer.is_success

    def observe(self, call_id: str, result: Any, *, is_error: bool) -> Any:
        said = _posted(
            self._agent,
            f"{self._path}/observe",
            {"call_id": call_id, "result": result, "is_error": is_error},
        )
        return said.get("result", result)

    def close(self, output: str) -> str:
        return str(_posted(self._agent, f"{self._path}/close", {"output": output})["output"] or "")


def _posted(client: httpx2.Client, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    answer = client.post(path, json=dict(body), headers={"Idempotency-Key": uuid4().hex})
    if not answer.is_success:
        raise AssertionError(f"{path}: {answer.status_code} {answer.text[:500]}")
    found: dict[str, Any] = answer.json()
    return found


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
