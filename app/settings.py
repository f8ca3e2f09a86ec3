"""Turns the environment into one frozen object, or refuses to start and says which name is wrong.

No error and no description ever shows a value that came from a secret. Values of the other names
are not echoed by errors either: a key pasted into the wrong variable must not end in a log.

Threat: Unauthorised API access
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn, SupportsIndex, TypeVar
from urllib.parse import urlsplit

from app import provider_settings
from app.domain import dispatch_settings
from app.domain.database_url import is_database_url
from app.domain.environment_names import default_data_dir, known_names
from app.domain.errors import ConfigurationError
from app.domain.step import tool_names
from app.egress import egress_settings
from app.sandbox import sandbox_settings
from app.telemetry import operations_settings

PREFIX = "MESHFLOW_"
HIDDEN = "(hidden)"
NOT_SET = "(not set)"

# Names that hold a secret, without the prefix. Each has a twin that ends in _FILE.
SECRET_NAMES = (
    "API_KEYS",
    "DATABASE_URL",
    "OWNER_DATABASE_URL",
    "SEQUENCER_DATABASE_URL",
    "ERASER_DATABASE_URL",
    "AUDIT_DATABASE_URL",
    egress_settings.SECRET_NAME,
)
PLAIN_NAMES = (
    *("DATA_DIR", "WORKSPACE_DIR", "LEDGER_KEY_DIR", "ERASURE_KEY_FILE", "ERASURE_JOURNAL"),
    "DEPLOYMENT",
    "WITNESSES",
    "ANCHOR_FILE",
    "CONFIG_DIR",
    "TOOLS",
    "RESULT_TTL_SECONDS",
    "RESULT_TTL",
    "MAX_BODY_BYTES",
    *("MAX_CONCURRENT_RUNS", "MAX_QUEUED_RUNS", "LEASE_SECONDS"),
    "MODEL_TIMEOUT_SECONDS",
    *("DOCS", "HOST", "PORT", "LOG_LEVEL"),
    *dispatch_settings.NAMES,
    *egress_settings.NAMES,
    *provider_settings.NAMES,
    *sandbox_settings.NAMES,
    *operations_settings.NAMES,
)
# Read by the tests and the benches; the server accepts the name and does nothing with it.
FOREIGN_NAMES = ("TEST_DATABASE_URL", "KEY_FILE")

KNOWN = frozenset(
    PREFIX + name
    for name in (*SECRET_NAMES, *(f"{n}_FILE" for n in SECRET_NAMES), *PLAIN_NAMES, *FOREIGN_NAMES)
)

_MAX_SECRET_FILE_BYTES = 1 << 20
_MAX_TTL_SECONDS = 365 * 86_400
_UNITS: Mapping[str, int] = MappingProxyType({"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400})
_DURATION = re.compile(r"([0-9]{1,9})([smhd]?)")
_DEPLOYMENT = re.compile(r"[a-z0-9.-]{1,128}(?:/[a-z0-9._-]{1,64}){0,8}")
_LOG_LEVELS = ("debug", "info", "warning", "error", "critical")

_Value = TypeVar("_Value")


class Secret:
    """A value that no repr, str, format, JSON, pickle or copy shows. `reveal()` is the only way."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself: hand it to the library that needs it and keep no other copy."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret{HIDDEN}"

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, format_spec: str) -> str:
        return format(HIDDEN, format_spec)

    def __deepcopy__(self, memo: object) -> "Secret":
        return self  # so that dataclasses.asdict carries the wrapper and not the value

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a secret is not pickled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the environment decides. Paths are absolute; none of them is known to exist.

    `api_keys_file` is kept as a path because the key source reads it again and again; every other
    secret file is read once, here. Exactly one of `api_keys` and `api_keys_file` may be set; both
    may be absent, which `serve` refuses and `--dev` fills in.
    """

    dev: bool
    api_keys: Secret | None
    api_keys_file: Path | None
    database_url: Secret | None
    owner_database_url: Secret | None
    sequencer_database_url: Secret | None
    eraser_database_url: Secret | None
    audit_database_url: Secret | None
    data_dir: Path
    workspace_dir: Path
    ledger_key_dir: Path
    erasure_key_file: Path | None  # None: this process signs no erasures
    erasure_journal: Path | None  # None: beside the erasure key
    deployment: str
    witnesses: Path | None
    anchor_file: Path | None
    config_dir: Path | None
    third_party_tools: tuple[str, ...]
    sandbox: sandbox_settings.SandboxSettings
    result_ttl_seconds: int
    max_body_bytes: int
    max_concurrent_runs: int
    max_queued_runs: int
    model_timeout_seconds: int
    docs: bool
    log_level: str
    models: provider_settings.ProviderSettings
    host: str
    port: int
    egress: egress_settings.EgressSettings
    lease_seconds: int
    dispatch: dispatch_settings.DispatchSettings
    operations: operations_settings.OperationsSettings
    ignored_names: tuple[str, ...]
    lines: tuple[tuple[str, str, str], ...] = field(repr=False, compare=False)

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str], *, dev: bool = False, uid: int, home: Path
    ) -> "Settings":
        """The settings in effect. ConfigurationError on the first problem; nothing is created."""
        ignored = known_names(environ, prefix=PREFIX, known=KNOWN, near=provider_settings.KEY_NAMES)
        read = _Reader({k: v for k, v in environ.items() if k not in ignored}, home)
        api_keys_file = read.kept_file("API_KEYS")
        data_dir = read.path("DATA_DIR", Path(default_data_dir(environ, uid, home)))
        return cls(
            dev=dev,
            api_keys=None if api_keys_file else read.secret(PREFIX + "API_KEYS", str),
            api_keys_file=api_keys_file,
            database_url=read.database_url("DATABASE_URL"),
            owner_database_url=read.database_url("OWNER_DATABASE_URL"),
            sequencer_database_url=read.database_url("SEQUENCER_DATABASE_URL"),
            eraser_database_url=read.database_url("ERASER_DATABASE_URL"),
            audit_database_url=read.database_url("AUDIT_DATABASE_URL"),
            data_dir=data_dir,
            workspace_dir=read.path("WORKSPACE_DIR", data_dir / "workspace"),
            ledger_key_dir=read.path("LEDGER_KEY_DIR", Path(f"{data_dir}-keys")),
            erasure_key_file=read.optional_path("ERASURE_KEY_FILE"),
            erasure_journal=read.optional_path("ERASURE_JOURNAL"),
            deployment=read.deployment(),
            witnesses=read.optional_path("WITNESSES"),
            anchor_file=read.optional_path("ANCHOR_FILE"),
            config_dir=read.optional_path("CONFIG_DIR"),
            third_party_tools=read.plain("TOOLS", tool_names, (), "tool names, comma-separated"),
            sandbox=sandbox_settings.SandboxSettings.read(read),
            result_ttl_seconds=read.result_ttl(),
            max_body_bytes=read.number("MAX_BODY_BYTES", 1 << 20, low=1024, high=1 << 30),
            max_concurrent_runs=read.number("MAX_CONCURRENT_RUNS", 64, low=1, high=100_000),
            max_queued_runs=read.number("MAX_QUEUED_RUNS", 1024, low=0, high=1_000_000),
            model_timeout_seconds=read.number("MODEL_TIMEOUT_SECONDS", 60, low=1, high=3600),
            docs=read.choice("DOCS", ("on", "off"), "on") == "on",
            log_level=read.choice("LOG_LEVEL", _LOG_LEVELS, "info"),
            models=provider_settings.ProviderSettings.read(read),
            host=read.host("HOST", "127.0.0.1"),
            port=read.number("PORT", 8000, low=0, high=65_535),
            egress=egress_settings.EgressSettings.read(read, dev=dev),
            lease_seconds=read.number("LEASE_SECONDS", 10, low=2, high=300),
            dispatch=dispatch_settings.DispatchSettings.read(read),
            operations=operations_settings.OperationsSettings.read(read, dev=dev),
            ignored_names=ignored,
            lines=tuple(read.lines),
        )

    def describe(self) -> list[tuple[str, str, str]]:
        """(name, effective value, source) for every setting; secrets show a marker instead."""
        return list(self.lines)


class _Reader:
    """Takes names out of the environment one by one and notes where each value came from."""

    __slots__ = ("_environ", "_home", "lines")

    def __init__(self, environ: Mapping[str, str], home: Path) -> None:
        self._environ = environ
        self._home = home
        self.lines: list[tuple[str, str, str]] = []

    def _note(self, name: str, value: str, source: str) -> None:
        self.lines.append((name, value, source))

    def plain(
        self, name: str, parse: Callable[[str], _Value | None], default: _Value, rule: str
    ) -> _Value:
        """The parsed value or the default; an empty value counts as not set."""
        full = PREFIX + name
        raw = self._environ.get(full, "").strip()
        if not raw:
            self._note(full, _shown(default), "default")
            return default
        value = parse(raw)
        if value is None or not raw.isprintable():
            raise ConfigurationError(f"{full} must be {rule}")
        self._note(full, _shown(value), "environment")
        return value

    def number(self, name: str, default: int, *, low: int, high: int) -> int:
        """A whole number within bounds."""

        def parse(raw: str) -> int | None:
            if re.fullmatch(r"[0-9]{1,12}", raw) is None:
                return None
            return int(raw) if low <= int(raw) <= high else None

        return self.plain(name, parse, default, f"a whole number from {low} to {high}")

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        """One of a few words, in any case."""

        def parse(raw: str) -> str | None:
            return raw.lower() if raw.lower() in allowed else None

        return self.plain(name, parse, default, f"one of {', '.join(allowed)}")

    def path(self, name: str, default: Path) -> Path:
        """A directory as an absolute path; `~/` is the home directory."""
        return self.plain(name, self._parse_path, default, "a path")

    def optional_path(self, name: str) -> Path | None:
        """As `path`, without a default."""
        return self.plain(name, self._parse_path, None, "a path")

    def _parse_path(self, raw: str) -> Path:
        return self._home / raw[2:] if raw.startswith("~/") else Path(raw).absolute()

    def deployment(self) -> str:
        """The name that the origins of all logs begin with: like a host and a path."""

        def parse(raw: str) -> str | None:
            return raw if _DEPLOYMENT.fullmatch(raw) else None

        rule = "like example.com/meshflow, in lower case"
        return self.plain("DEPLOYMENT", parse, "meshflow.local", rule)

    def base_url(self, name: str) -> str | None:
        """An http(s) URL. It is shown in clear, so it may carry no credentials and no query."""

        def parse(raw: str) -> str | None:
            try:
                parts = urlsplit(raw)
                named = parts.hostname is not None and parts.port != 0
            except ValueError:
                return None
            bare = "@" not in parts.netloc and "?" not in raw and "#" not in raw
            return raw if named and bare and parts.scheme in ("http", "https") else None

        return self.plain(name, parse, None, "an http or https URL without credentials or query")

    def host(self, name: str, default: str) -> str:
        """A host name or address to bind."""

        def parse(raw: str) -> str | None:
            return raw if re.fullmatch(r"[A-Za-z0-9.:_%-]{1,255}", raw) else None

        return self.plain(name, parse, default, "a host name or an address")

    def result_ttl(self) -> int:
        """Seconds that a full result is kept; two spellings of one setting."""
        names = ("RESULT_TTL_SECONDS", "RESULT_TTL")
        given = [name for name in names if self._environ.get(PREFIX + name, "").strip()]
        if len(given) > 1:
            raise ConfigurationError(f"{PREFIX}{given[0]} and {PREFIX}{given[1]} are both set")

        def parse(raw: str) -> int | None:
            match = _DURATION.fullmatch(raw)
            seconds = int(match[1]) * _UNITS[match[2]] if match else _MAX_TTL_SECONDS + 1
            return seconds if seconds <= _MAX_TTL_SECONDS else None

        rule = "seconds, or a number with s, m, h or d, of at most 365 days"
        return self.plain(given[0] if given else names[0], parse, 86_400, rule)

    def database_url(self, name: str) -> Secret | None:
        """A Postgres URL; the whole of it is a secret, since it may carry a password."""
        return self.secret(PREFIX + name, _database_url)

    def secret(self, full: str, check: Callable[[str], str | None]) -> Secret | None:
        """From the environment or from the file its twin names; both, or an empty one: refused."""
        raw, source = self._environ.get(full), "environment"
        if not full.startswith(PREFIX) and not (raw or "").strip():
            raw = None  # a provider's variable exported empty is everyday and means "none"
        twin = self._twin(full, given=raw is not None)
        if twin is not None:
            raw, source = _read_secret_file(twin, f"{full}_FILE"), f"file in {full}_FILE"
        if raw is None:
            self._note(full, NOT_SET, "default")
            return None
        value = raw.strip()
        if not value:
            # A secret that was injected empty is a broken deployment, not a wish for the default.
            raise ConfigurationError(f"{full} is set but empty")
        if check(value) is None:
            raise ConfigurationError(f"{full} is malformed")
        self._note(full, HIDDEN, source)
        return Secret(value)

    def kept_file(self, name: str) -> Path | None:
        """The path in the _FILE twin of a secret that is read again later; it must be readable."""
        full = PREFIX + name
        path = self._twin(full, given=full in self._environ)
        if path is not None:
            _read_secret_file(path, f"{full}_FILE")
            self._note(full, HIDDEN, f"file in {full}_FILE")
        return path

    def _twin(self, full: str, *, given: bool) -> Path | None:
        named = self._environ.get(f"{full}_FILE")
        if named is None:
            return None
        if given:
            raise ConfigurationError(f"{full} and {full}_FILE are both set")
        if not named.strip():
            raise ConfigurationError(f"{full}_FILE is set but empty")
        return self._parse_path(named.strip())


def _shown(value: object) -> str:
    return NOT_SET if value is None or value == () else str(value)


def _database_url(value: str) -> str | None:
    return value if is_database_url(value) else None


def _read_secret_file(path: Path, variable: str) -> str:
    """The file's text. The error names the variable and not the path: it may be a pasted secret."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_SECRET_FILE_BYTES + 1)
    except (OSError, ValueError):
        raise ConfigurationError(f"the file named by {variable} cannot be read") from None
    if len(raw) > _MAX_SECRET_FILE_BYTES:
        raise ConfigurationError(f"the file named by {variable} is too large")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"the file named by {variable} is not UTF-8 text") from None
