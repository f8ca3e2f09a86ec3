"""`meshflow serve`: checks everything that can be checked, then starts database and server.

Threat: Unauthorised API access
"""

import dataclasses
import hashlib
import logging
import secrets
import signal
import socket
import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from app.cli.invocation import Invocation
from app.cli.listening import bound, metrics_listener, shown_url
from app.cli.tls_pair import load_tls_pair
from app.domain.errors import ConfigurationError
from app.keys.key_ring import KeySource, development_items, new_key
from app.settings import Settings

_log = logging.getLogger("meshflow")
TLS_PORT = 8443
PLAIN_PORT = 8080
_BACK_HERE = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class DevelopmentKeys:
    """Two keys that live as long as the process; the server itself keeps only their digests."""

    submit: str
    approve: str

    def items(self) -> str:
        """What MESHFLOW_API_KEYS would hold for them."""
        return development_items(_digest_item(self.submit), _digest_item(self.approve))


def serve(invocation: Invocation, arguments: Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C. 0 after an orderly end, 2 when refused with a sentence."""
    settings = invocation.settings(dev=arguments.dev)
    configure_logging(settings)
    tls = load_tls_pair(arguments.tls_cert, arguments.tls_key)
    keys = _keys(settings)
    host: str = arguments.host or settings.host
    port = _port(arguments.port, settings, is_tls=tls is not None)
    must_stay = tls is None and not arguments.behind_tls_proxy
    proxies = _trusted_proxies(arguments)
    with (
        bound(host, port, must_stay=must_stay) as listener,
        metrics_listener(settings.operations) as metrics,
    ):
        url = shown_url(listener, host, is_tls=tls is not None)
        if invocation.uid == 0:
            _log.warning("running as root; an own user is safer")
        for name in settings.ignored_names:
            _log.info("ignored, made by Kubernetes: %s", name)

        from app import roster
        from app.cli.database_setup import serving_database
        from app.cli.stream_drain import StreamDrain
        from app.cli.web_server import WebServer

        # Refused here in one sentence, before a database is started.
        roster.tools(settings)
        roster.span_exporter(settings)
        with serving_database(settings) as ready:
            from app.main import create_app

            app = create_app(ready, key_items=None if keys is None else keys.items())
            app.state.metrics_listener = metrics
            server = WebServer(
                listener=listener,
                tls=tls,
                trusted_proxies=proxies,
                drain_seconds=settings.operations.drain(behind_proxy=arguments.behind_tls_proxy),
                on_ready=lambda: _greet(url, settings, keys, arguments.tls_cert, metrics),
            )
            if settings.api_keys_file is not None:
                source: KeySource = app.state.doorkeeper.source
                signal.signal(signal.SIGHUP, lambda _signal, _frame: _reload_keys(source))
            drain = StreamDrain(app, lambda: app.state.claim_no_more())  # noqa: PLW0108 - it is there once the application has started
            return server.run(drain)


def _reload_keys(source: KeySource) -> None:
    """Read the key file again. Tenants that are new in it are known within seconds."""
    _log.info("keys read again: %s", source.reload().error or "done")


def _keys(settings: Settings) -> DevelopmentKeys | None:
    """Keys made now, or None when the configured ones are good. ConfigurationError."""
    if settings.api_keys_file is not None:
        KeySource.from_file(settings.api_keys_file, dev=settings.dev)
    elif settings.api_keys is not None:
        KeySource.from_list(settings.api_keys.reveal(), dev=settings.dev)
    elif settings.dev:
        return DevelopmentKeys(
            submit=new_key(secrets.token_urlsafe), approve=new_key(secrets.token_urlsafe)
        )
    else:
        raise ConfigurationError(
            "no API keys: set MESHFLOW_API_KEYS or MESHFLOW_API_KEYS_FILE (`meshflow keys new` "
            "makes one), or use --dev on your own machine"
        )
    return None


def _digest_item(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def _port(given: int | None, settings: Settings, *, is_tls: bool) -> int:
    if given is not None:
        return given
    sources = {name: source for name, _, source in settings.describe()}
    if sources.get("MESHFLOW_PORT") != "default":
        return settings.port
    return TLS_PORT if is_tls else PLAIN_PORT


def _trusted_proxies(arguments: Namespace) -> tuple[str, ...]:
    given: list[str] | None = arguments.trusted_proxy
    if not arguments.behind_tls_proxy:
        if given:
            raise ConfigurationError("--trusted-proxy needs --behind-tls-proxy")
        return ()
    return tuple(given) if given else _BACK_HERE


def _greet(
    url: str,
    settings: Settings,
    keys: DevelopmentKeys | None,
    certificate: Path | None,
    metrics: socket.socket | None,
) -> None:
    """Say where the service is. Development keys are printed here, once, and kept nowhere."""
    lines = [f"MeshFlow serves on {url}"]
    if metrics is not None:
        shown = shown_url(metrics, settings.operations.metrics_host, is_tls=False)
        lines.append(f"metrics      {shown}/metrics")
    if settings.docs:
        lines.append(f"docs         {url}/docs")
    if keys is not None:
        lines += [
            f"submit key   {keys.submit}   (all scopes but approve)",
            f"approve key  {keys.approve}   (approve, audit, policy)",
            "Both end with this process. A first task:",
            f"  {_curl(url, keys.submit, certificate)}",
        ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _curl(url: str, key: str, certificate: Path | None) -> str:
    trust = "" if certificate is None else f"--cacert '{certificate.absolute()}' "
    return (
        f'curl -sS {trust}-X POST {url}/v1/runs -H "Authorization: Bearer {key}"'
        ' -H "Content-Type: application/json" -H "Prefer: wait=20"'
        ' -d \'{"task":"What is 6*7?"}\''
    )


def configure_logging(settings: Settings) -> None:
    """Every record of every library goes through the filter that takes secrets out."""
    from app.privacy.log_filter import JsonLines, SecretFilter
    from app.privacy.scrubber import Scrubber
    from app.telemetry.trace_context import MarkFilter

    own = [
        value.reveal()
        for field in dataclasses.fields(settings)
        if hasattr(value := getattr(settings, field.name), "reveal")
    ]
    own += settings.egress.secret_values()
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(MarkFilter())
    handler.addFilter(SecretFilter(Scrubber(own)))
    handler.setFormatter(
        JsonLines()
        if settings.operations.log_format == "json"
        else logging.Formatter("%(levelname)s %(name)s: %(message)s")
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for chatty in ("httpx2", "httpcore2", "alembic"):
        # They log addresses with query strings, and every migration's name.
        logging.getLogger(chatty).setLevel(logging.WARNING)
