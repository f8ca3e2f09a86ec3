"""A collector is told what a run did and never what was said in it."""

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.api_matrix import calls, finished, patiently, says, scripted
from tests.support.databases import DatabaseServer
from tests.support.live_server import live_server

PLANTED = "zqPlantedSpanWord3107"


class Collector:
    """Takes spans over HTTP as a real one does; keeps the bytes."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.spans: list[Span] = []
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/traces"
                request = ExportTraceServiceRequest.FromString(body)
                told.bodies.append(body)
                for resource in request.resource_spans:
                    for scope in resource.scope_spans:
                        told.spans.extend(scope.spans)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join(60)


def attributes(span: Span) -> dict[str, object]:
    """By name; of a list its one word."""
    found: dict[str, object] = {}
    for item in span.attributes:
        kind = item.value.WhichOneof("value")
        assert kind is not None
        value = getattr(item.value, kind)
        found[item.key] = value.values[0].string_value if kind == "array_value" else value
    return found


def test_a_run_is_one_trace_of_its_calls_without_a_word_of_content(
    api_databases: DatabaseServer, collector: Collector
) -> None:
    overrides = scripted(
        calls("calculator", expression=f"6*7 {PLANTED}"), says(f"answer {PLANTED}")
    )
    with (
        live_server(
            api_databases.new_database(), overrides, MESHFLOW_OTLP_ENDPOINT=collector.url
        ) as server,
        server.client() as client,
    ):
        run = finished(client, {"task": f"task {PLANTED}"})
        for _ in patiently():
            if len(collector.spans) >= 4:
                break
    names = [span.name for span in collector.spans]
    assert names == [
        "chat scripted",
        "execute_tool calculator",
        "chat scripted",
        "invoke_agent assistant",
    ]
    first, tool, second, root = collector.spans
    assert {span.trace_id.hex() for span in collector.spans} == {run["id"].removeprefix("run_")}
    assert root.parent_span_id == b""
    assert {span.parent_span_id for span in (first, tool, second)} == {root.span_id}
    assert len({span.span_id for span in collector.spans}) == 4
    assert all(s.start_time_unix_nano <= s.end_time_unix_nano for s in collector.spans)
    assert attributes(root) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "assistant",
        "gen_ai.conversation.id": run["id"],
        "meshflow.run.status": "succeeded",
    }
    told = attributes(first)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == "scripted"
    assert isinstance(told["gen_ai.usage.output_tokens"], int)
    assert attributes(tool)["gen_ai.tool.name"] == "calculator"
    assert attributes(tool)["error.type"] == "tool_error"
    assert tool.status.code == Status.STATUS_CODE_ERROR
    assert not any(PLANTED.encode() in body for body in collector.bodies)


def test_a_run_that_was_submitted_within_a_trace_is_linked_to_its_callers_span(
    api_databases: DatabaseServer, collector: Collector
) -> None:
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with (
        live_server(
            api_databases.new_database(), scripted(says("42")), MESHFLOW_OTLP_ENDPOINT=collector.url
        ) as server,
        server.client() as client,
    ):
        client.headers["traceparent"] = f"00-{trace}-{span}-01"
        finished(client, {"task": "6*7"})
        for _ in patiently():
            if len(collector.spans) >= 3:
                break
    submitted, asked, root = collector.spans
    assert [submitted.name, root.name] == ["submit", "invoke_agent assistant"]
    for linked in (submitted, root):
        assert [(one.trace_id.hex(), one.span_id.hex()) for one in linked.links] == [(trace, span)]
    assert len(asked.links) == 0
    assert submitted.parent_span_id == root.span_id
    assert submitted.trace_id == root.trace_id != bytes.fromhex(trace)


def test_a_collector_that_is_not_there_holds_nothing_up(api_databases: DatabaseServer) -> None:
    gone = Collector()
    gone.server.server_close()
    roles = api_databases.new_database()
    with live_server(roles, MESHFLOW_OTLP_ENDPOINT=gone.url) as server, server.client() as client:
        assert finished(client, {"task": "6*7"})["status"] == "succeeded"


WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from app.cli.entry import main
sys.exit(main(["serve", "--port", "0"]))
"""


def test_without_the_extra_a_configured_collector_is_refused_in_a_sentence(
    api_databases: DatabaseServer, tmp_path: Path
) -> None:
    environ = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "MESHFLOW_API_KEYS": "a-key-0000000000000000000000000001",
        "MESHFLOW_DATABASE_URL": api_databases.new_database().app,
        "MESHFLOW_DATA_DIR": str(tmp_path / "data"),
        "MESHFLOW_OTLP_ENDPOINT": "http://127.0.0.1:4318",
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "needs the extra `otel`" in done.stderr
