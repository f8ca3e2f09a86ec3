"""The web tool over real sockets: what the model is told, and what it is never told."""

import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import jsonschema
import pytest

from app.domain.run import JsonObject
from app.domain.step import Effect, ToolCall, ToolResult
from app.domain.verdict import AuthorizedCall, Decision, Point, PolicyRef, Verdict
from app.egress.egress_client import EgressClient
from app.egress.tool_credentials import ToolCredential
from app.egress.url_blocklist import UrlBlocklist
from app.egress.url_policy import READING, UrlPolicy, host_rules
from app.policy.schema_check import check_schema, first_violation
from app.sandbox.workspace import Workspace, open_workspace_root
from app.tools.http_fetch import HttpFetch
from app.tools.toolbox import Toolbox
from tests.support.egress_field import CANARY, Field, egress_field
from tests.support.egress_tls import field_tls

HOSTS = host_rules("allowed.example, *.allowed.example")
SENDING = frozenset({"GET", "POST"})
VALUE = "tok-1234567890abcdef"
DECISION = Decision(
    point=Point.TOOL_CALL,
    verdict=Verdict.ALLOW,
    rules=(),
    code="",
    policy=PolicyRef(policy_id="p", version=1, digest="0" * 64),
)


def policy(methods: frozenset[str] = READING) -> UrlPolicy:
    assert HOSTS is not None
    return UrlPolicy(hosts=HOSTS, blocklist=UrlBlocklist(), methods=methods)


def credential(tool: str = "http_fetch") -> ToolCredential:
    return ToolCredential(
        tool=tool,
        host="www.allowed.example",
        port=443,
        header="Authorization",
        value=f"Bearer {VALUE}",
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    root = open_workspace_root(tmp_path, forbidden=[])
    opened = root.for_run("a" * 32, "b" * 32)
    yield opened
    opened.close()
    root.close()


class Web:
    """The tool in a field."""

    def __init__(self, field: Field, tool: HttpFetch, workspace: Workspace) -> None:
        self.field, self.tool, self._workspace = field, tool, workspace

    async def fetch(self, url: str, **more: str) -> ToolResult:
        arguments: JsonObject = {"url": url, **more}
        call = ToolCall(call_id="c", name="http_fetch", arguments=arguments)
        proof = AuthorizedCall(call=call, spec=self.tool.spec, decision=DECISION)
        return await Toolbox({"http_fetch": self.tool}).run(proof, self._workspace)


@asynccontextmanager
async def web(
    workspace: Workspace,
    methods: frozenset[str] = READING,
    credentials: tuple[ToolCredential, ...] = (),
) -> AsyncIterator[Web]:
    server_tls, trusted = field_tls()
    async with egress_field(server_tls, trusted) as field:
        client = EgressClient(parts=field.parts)
        yield Web(field, HttpFetch(client, policy(methods), credentials), workspace)
        await client.close()


def redirect(url: str) -> str:
    return f"//www.allowed.example/to?{url.encode().hex()}"


@pytest.mark.parametrize("methods", [READING, SENDING])
def test_its_declaration_is_closed_and_the_gate_can_check_it(methods: frozenset[str]) -> None:
    spec = HttpFetch(EgressClient(), policy(methods)).spec
    assert spec.effect is Effect.NETWORK
    check_schema(spec.parameters)
    jsonschema.Draft202012Validator.check_schema(spec.parameters)
    good: JsonObject = {"url": "https://www.allowed.example/"}
    assert first_violation(spec.parameters, good) is None
    bads: list[JsonObject] = [{}, {**good, "more": 1}, {"url": 5}, {**good, "method": "DELETE"}]
    for bad in bads:
        assert first_violation(spec.parameters, bad) is not None
    assert first_violation(spec.parameters, {**good, "headers": {"Host": "x"}}) is not None
    has_body = first_violation(spec.parameters, {**good, "method": "POST", "body": "x"}) is None
    assert has_body is (methods == SENDING)
    assert spec.free_text == ({"body"} if methods == SENDING else set())


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_page_is_told_and_marked_as_nobodys_word(scheme: str, workspace: Workspace) -> None:
    async with web(workspace) as page:
        result = await page.fetch(f"{scheme}://www.allowed.example/page")
        listener = page.field.secure if scheme == "https" else page.field.public
    assert not result.is_error
    lines = result.content.splitlines()
    assert lines[0] == "HTTP 200"
    assert "untrusted data" in lines[1]  # before anything that the host may choose
    assert lines[2:] == [
        f"url: {scheme}://www.allowed.example/page",
        "type: text/plain",
        "",
        "hello",
    ]
    head = listener.heads[0].decode().lower().split("\r\n")
    assert head[0] == "get /page http/1.1"
    assert {"host: www.allowed.example", "accept-encoding: identity", "connection: close"} <= {
        *head
    }
    assert not [line for line in head if line.startswith(("cookie", "authorization", "proxy"))]


@pytest.mark.anyio
async def test_a_head_a_long_page_and_a_redirect_are_told(workspace: Workspace) -> None:
    async with web(workspace) as page:
        head = await page.fetch("http://www.allowed.example/", method="HEAD")
        flood = await page.fetch("http://www.allowed.example/flood")
        moved = await page.fetch("http:" + redirect("http://other.allowed.example/there"))
    assert (head.is_error, flood.is_error, moved.is_error) == (False, False, False)
    assert head.content.splitlines()[0] == "HTTP 200"
    assert "hello" not in head.content
    assert len(flood.content.encode()) <= page.tool.spec.result_limit_bytes
    assert flood.content.endswith("[truncated]")
    assert "url: http://other.allowed.example/there" in moved.content


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://ip-0a000001.allowed.example/", "no public address of this host is known"),
        ("http://nowhere.allowed.example/", "no public address of this host is known"),
        ("http://mix-0a000001.allowed.example/", "no public address of this host is known"),
        ("http:" + redirect("http://ip-0a000001.allowed.example/"), "no public address"),
        ("http:" + redirect("http://10.0.0.1/admin"), "not on the list of allowed hosts"),
        ("https:" + redirect("http://www.allowed.example/"), "from https to http"),
        ("https://six.allowed.example.evil.example/", "not on the list of allowed hosts"),
        ("http://www.allowed.example:22/", "this port is not allowed"),
        ("http://www.allowed.example/garbage", "does not speak HTTP"),
        ("http://www.allowed.example/gzip", "compressed"),
        ("http://www.allowed.example/loop", "too many redirects"),
        ("http://www.allowed.example/hundreds", "sends more than is taken"),
        ("file:///etc/passwd", "only http and https"),
    ],
)
async def test_a_failure_is_a_result_without_an_address(
    url: str, told: str, workspace: Workspace
) -> None:
    async with web(workspace) as page:
        result = await page.fetch(url)
        await page.field.settle()
        assert page.field.inside.accepted == []
    assert result.is_error
    assert result.content.startswith("not fetched: ")
    assert told in result.content
    for secret in ("10.0.0.1", "0a000001", "93.184", "127.0.0.1", "admin", CANARY.decode()):
        assert secret not in result.content


@pytest.mark.anyio
async def test_a_certificate_that_nobody_vouches_for_is_refused(workspace: Workspace) -> None:
    async with egress_field(field_tls()[0]) as field:
        client = EgressClient(parts=field.parts)
        page = Web(field, HttpFetch(client, policy()), workspace)
        result = await page.fetch("https://www.allowed.example/")
        await client.close()
    assert result.content == "not fetched: no trusted TLS connection could be made"
    assert field.secure.heads == []


@pytest.mark.anyio
async def test_a_certificate_for_another_name_is_refused(workspace: Workspace) -> None:
    async with web(workspace) as page:
        result = await page.fetch("https://www.deep.allowed.example/")  # the wildcard is one label
        assert page.field.dial.dialled == [("93.184.216.34", 443)]
        assert page.field.secure.heads == []
    assert result.content == "not fetched: no trusted TLS connection could be made"


@pytest.mark.anyio
async def test_a_body_goes_out_with_its_length_and_is_not_sent_on(workspace: Workspace) -> None:
    async with web(workspace, SENDING) as page:
        sent = await page.fetch("http://www.allowed.example/in", method="POST", body='{"a": 1}')
        moved = await page.fetch(
            "http:" + redirect("http://other.allowed.example/there"), method="POST", body="x"
        )
        heads = [head.decode().lower() for head in page.field.public.heads]
    assert sent.content.splitlines()[0] == "HTTP 200"
    assert moved.content.splitlines()[0] == "HTTP 302"
    assert len(heads) == 2
    assert "content-length: 8\r\n" in heads[0]
    assert "content-type: application/json\r\n" in heads[0]


@pytest.mark.anyio
async def test_a_credential_goes_to_its_host_over_tls_and_comes_back_to_nobody(
    workspace: Workspace,
) -> None:
    async with web(workspace, credentials=(credential(), credential("other_tool"))) as page:
        echoed = await page.fetch("https://www.allowed.example/echo")
        await page.fetch("https://other.allowed.example/echo")
        await page.fetch("http://www.allowed.example/echo")
        heads = [head.decode() for head in page.field.secure.heads]
        plain = [head.decode() for head in page.field.public.heads]
    assert heads[0].count(VALUE) == 1
    assert VALUE not in "".join([*heads[1:], *plain])
    assert VALUE not in echoed.content
    assert "Authorization: [credential]" in echoed.content


@pytest.mark.anyio
async def test_a_body_that_is_cut_inside_a_credential_shows_no_piece_of_it(
    workspace: Workspace,
) -> None:
    long = "".join(f"{number:04x}" for number in range(1000))
    one = dataclasses.replace(credential(), value=f"Bearer {long}")
    async with web(workspace, credentials=(one,)) as page:
        result = await page.fetch("https://www.allowed.example/stammer")
    assert "[credential]" in result.content
    assert result.content.endswith("[truncated]")
    assert long[:8] not in result.content


@pytest.mark.anyio
async def test_a_credential_stays_behind_at_a_redirect_to_another_host(
    workspace: Workspace,
) -> None:
    there = "https://other.allowed.example/echo"
    back = "https:" + redirect("https://www.allowed.example/echo").replace("www", "other", 1)
    async with web(workspace, credentials=(credential(),)) as page:
        for target in (there, back, "https://www.allowed.example/echo"):
            page.field.forget()
            result = await page.fetch("https:" + redirect(target))
            assert not result.is_error, result.content
            carried = [VALUE in head.decode() for head in page.field.secure.heads]
            same = target == "https://www.allowed.example/echo"
            assert carried == [True, *([same] if target != back else [False, False])]


@pytest.mark.anyio
async def test_a_type_that_is_no_text_is_counted_and_not_shown(workspace: Workspace) -> None:
    async with web(workspace) as page:
        result = await page.fetch("http://www.allowed.example/picture")
    assert "type: image/png" in result.content
    assert result.content.endswith("[4 bytes that are no text are not shown]")


@pytest.mark.anyio
async def test_a_client_that_is_closed_sends_nothing(workspace: Workspace) -> None:
    async with egress_field() as field:
        client = EgressClient(parts=field.parts)
        await client.close()
        page = Web(field, HttpFetch(client, policy()), workspace)
        result = await page.fetch("http://www.allowed.example/")
        assert field.public.accepted == []
    assert result.content == "not fetched: the service is stopping"
