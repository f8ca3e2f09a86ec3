"""What is plugged in: tools, providers and rules. The attack surface on one page."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec

import app as package
from app.domain.errors import ConfigurationError
from app.domain.record import RunEvent
from app.domain.run import RunId
from app.domain.sandbox_mode import SandboxMode
from app.egress.egress_client import EgressClient
from app.embedded.server_account import choose_server_account
from app.policy.built_in_bundles import built_in_bundle
from app.policy.bundle import PolicyBundle
from app.policy.gate import RuleBook, rule_ids
from app.policy.rules import (
    ApprovalShape,
    CallShape,
    DeliveryShape,
    MessageShape,
    OutputShape,
    ReplyShape,
    RequestShape,
    ResultShape,
    TaskBudget,
    TaskCapability,
    TaskShape,
)
from app.policy.schema_check import SchemaRefusedError, check_schema
from app.provider_settings import ProviderName
from app.providers.anthropic import anthropic_provider
from app.providers.extras.extra_providers import (
    bedrock_provider,
    gemini_provider,
    openai_provider,
)
from app.providers.offline import OfflineProvider
from app.providers.prices import MODELS, Models
from app.providers.provider import ModelProvider
from app.sandbox.execution import EngineName
from app.sandbox.runner_assembly import build_runner
from app.sandbox.sandbox_profile import WorkerAccount
from app.sandbox.tool_runner import ToolRunner
from app.settings import Settings
from app.tools.calculator import Calculator
from app.tools.current_time import CurrentTime
from app.tools.files import ListFiles, ReadFile, SearchFiles, WriteFile
from app.tools.http_fetch import NAME as HTTP_FETCH
from app.tools.http_fetch import NO_HOSTS, HttpFetch
from app.tools.json_query import JsonQuery
from app.tools.program_list import ProgramList, load_program_list
from app.tools.python_guard import load_refusals
from app.tools.python_tool import NAME as PYTHON
from app.tools.python_tool import PythonTool
from app.tools.shell_guard import load_shell_refusals
from app.tools.shell_tool import NAME as SHELL
from app.tools.shell_tool import ShellTool
from app.tools.third_party import third_party_tools
from app.tools.toolbox import Tool

TOOLS: tuple[Tool, ...] = (
    Calculator(),
    CurrentTime(partial(datetime.now, UTC)),
    JsonQuery(),
    ReadFile(),
    WriteFile(),
    ListFiles(),
    SearchFiles(),
)
# Built-in tools that depend on the machine or the settings: nobody else's goes by their names.
_RESERVED = frozenset({PYTHON, SHELL, HTTP_FETCH})
DEFAULT_MODELS: Mapping[ProviderName, str] = {
    ProviderName.OFFLINE: "offline",
    ProviderName.ANTHROPIC: "claude-sonnet-5-5",
    ProviderName.OPENAI: "gpt-6.1-sol",
    ProviderName.GEMINI: "gemini-3.8-flash",
    ProviderName.BEDROCK: "global.anthropic.claude-sonnet-5-5",
}


def tools(settings: Settings) -> tuple[Tool, ...]:
    """Every tool of this deployment: the built-in ones, then those of others that were named.

    ConfigurationError for one of others that is not there or not as the contract wants it.
    """
    taken = frozenset(tool.spec.name for tool in TOOLS) | _RESERVED
    others = third_party_tools(settings.third_party_tools, taken=taken)
    for tool in others:
        try:
            check_schema(tool.spec.parameters)
        except SchemaRefusedError as refused:
            # The gate would deny its every call.
            raise ConfigurationError(f"the tool '{tool.spec.name}': {refused}") from None
    return (*TOOLS, *others)


def worker_account() -> tuple[WorkerAccount | None, str | None]:
    """As whom root runs workers, or why it cannot; nobody else changes the account."""
    if os.geteuid() != 0:
        return None, None
    try:
        found = choose_server_account()
    except ConfigurationError:
        return None, "the server is root, and no account without power exists to run tools as"
    return WorkerAccount(uid=found.uid, gid=found.gid), None


def worker_runner(
    settings: Settings, account: WorkerAccount | None, no_account: str | None
) -> tuple[ToolRunner, ProgramList | None]:
    """What runs confined programs, and those that the operator listed, if any.

    ConfigurationError for a list that is not right.
    """
    programs = load_program_list(settings.config_dir)
    runner = build_runner(
        settings.sandbox,
        account=account,
        no_account=no_account,
        executable=() if programs is None else programs.paths,
    )
    return runner, programs


def confined_tools(
    settings: Settings, runner: ToolRunner, programs: ProgramList | None
) -> tuple[tuple[Tool, ...], dict[str, str]]:
    """The tools that need a confined worker; by name, why one cannot be had here.

    With a list of programs the shell runs those, without one it is the virtual shell.
    """
    python = runner.python_engine
    engines = {
        PYTHON: python.name,
        SHELL: EngineName.VIRTUAL_SHELL if programs is None else EngineName.EXEC,
    }
    missing = {name: runner.unavailable(engine) for name, engine in engines.items()}
    found: list[Tool] = []
    walls = runner.mode is not SandboxMode.OFF_UNSAFE
    if missing[PYTHON] is None:
        bans = load_refusals(settings.config_dir)
        found.append(PythonTool(runner, bans, python, is_confined=walls))
    if missing[SHELL] is None:
        refusals, has_files = load_shell_refusals(settings.config_dir), runner.shell_has_files
        found.append(ShellTool(runner, refusals, programs, has_files=has_files, is_confined=walls))
    return tuple(found), {name: why for name, why in missing.items() if why is not None}


def web_tools(settings: Settings, client: EgressClient) -> tuple[tuple[Tool, ...], dict[str, str]]:
    """The tools that reach the web; by name, why one is not there."""
    policy = settings.egress.fetch_policy()
    if policy is None:
        return (), {HTTP_FETCH: NO_HOSTS}
    return (HttpFetch(client, policy, settings.egress.credentials()),), {}


def providers(settings: Settings, models: Models = MODELS) -> dict[str, ModelProvider]:
    """The providers that these settings allow. `offline` is always there, and named as such.

    ConfigurationError when the one that was chosen needs an extra that is not installed.
    """
    plugged: dict[str, ModelProvider] = {"offline": OfflineProvider()}
    said = settings.models
    if said.anthropic_key is not None:
        key = said.anthropic_key.reveal
        plugged["anthropic"] = anthropic_provider(
            key, base_url=said.anthropic_base_url, models=models
        )
    if said.openai_key is not None and _is_installed("openai"):
        plugged["openai"] = openai_provider(
            said.openai_key.reveal, base_url=said.openai_base_url, models=models
        )
    if said.gemini_key is not None and _is_installed("google.genai"):
        plugged["gemini"] = gemini_provider(
            said.gemini_key.reveal, base_url=said.gemini_base_url, models=models
        )
    if said.bedrock_region is not None and _is_installed("boto3"):
        plugged["bedrock"] = bedrock_provider(
            said.bedrock_region, base_url=said.bedrock_base_url, models=models
        )
    if said.chosen not in plugged:
        raise ConfigurationError(
            f"MESHFLOW_PROVIDER is {said.chosen}, and that extra is not installed:"
            f" pip install 'meshflow[{said.chosen}]'"
        )
    return plugged


def _is_installed(library: str) -> bool:
    """Whether an extra is there, without importing it. A key alone may lie about from elsewhere."""
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:  # the package above it is missing
        return False


SpanTeller = Callable[[RunId, Sequence[tuple[int, RunEvent]], datetime], None]


def span_exporter(settings: Settings) -> Callable[[str, str], SpanTeller] | None:
    """What tells a collector of runs, if one is configured. ConfigurationError without `otel`."""
    if settings.operations.otlp_endpoint is None:
        return None
    try:
        from app.telemetry.otlp_export import SpanExporter  # noqa: PLC0415 - of an extra
    except ImportError:
        raise ConfigurationError(
            "MESHFLOW_OTLP_ENDPOINT needs the extra `otel`: pip install 'meshflow[otel]'"
        ) from None
    return lambda endpoint, version: SpanExporter(endpoint, version).told


def span_teller(settings: Settings) -> SpanTeller | None:
    """Tells the collector, or None where nobody wants to be told."""
    made, endpoint = span_exporter(settings), settings.operations.otlp_endpoint
    return None if made is None or endpoint is None else made(endpoint, package.__version__)


def rule_book() -> RuleBook:
    """The rules in force at each of the nine points."""
    draft = _book(built_in_bundle())
    checks = json.dumps(
        {point.value: ids for point, ids in rule_ids(draft).items()}, sort_keys=True
    )
    return _book(built_in_bundle(checks=checks))


def _book(bundle: PolicyBundle) -> RuleBook:
    return RuleBook(
        bundle=bundle,
        run_submit=(TaskShape(), TaskCapability(), TaskBudget()),
        llm_request=(RequestShape(),),
        llm_response=(ReplyShape(),),
        tool_call=(CallShape(),),
        tool_result=(ResultShape(),),
        agent_message=(MessageShape(),),
        run_output=(OutputShape(),),
        webhook_send=(DeliveryShape(),),
        approval_resolve=(ApprovalShape(),),
    )
