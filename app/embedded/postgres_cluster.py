"""Makes a data directory with its database and logins on first start, all or nothing.

Roles are made by the server's single-user mode, so no server listens before every password is set.

Threat: Ledger tampering
"""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from app.domain.errors import ConfigurationError
from app.embedded.postgres_binaries import ServerBinaries
from app.embedded.server_account import ServerAccount
from app.embedded.state_directory import StateDirectory

DATABASE = "meshflow"
SUPERUSER = "mf_superuser"
OWNER = "mf_owner"
LOGINS = (OWNER, "mf_app", "mf_audit", "mf_sequencer", "mf_eraser")
# Nothing of the caller's environment reaches the server: it holds API keys.
SERVER_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
PASSWORD_FILE = "passwords.json"  # noqa: S105 - the name of a file, not a password
_PASSWORD_BYTES = 32
_FIRST_MAJOR_WITH_OPTIONS_OF_GRANTS = 16
_FIRST_MAJOR_WITH_BUILTIN_COLLATION = 17
_SET_UP_TIMEOUT_SECONDS = 300


def ensure_passwords(state: StateDirectory, *, data_exists: bool) -> Mapping[str, str]:
    """One password a login, made on first start.

    ConfigurationError when the data is there and its passwords are not.
    """
    stored = state.read_private(PASSWORD_FILE)
    if all(stored.get(role) for role in (SUPERUSER, *LOGINS)):
        return stored
    if data_exists:
        raise ConfigurationError(
            f"{state.path / PASSWORD_FILE} is missing or incomplete: restore it from a backup; "
            "the database cannot be opened without it"
        )
    made = {role: secrets.token_urlsafe(_PASSWORD_BYTES) for role in (SUPERUSER, *LOGINS)}
    state.write_private(PASSWORD_FILE, made)
    return made


def create_cluster(
    state: StateDirectory, binaries: ServerBinaries, passwords: Mapping[str, str], *, durable: bool
) -> Path:
    """The new data directory, in place only when its roles and database are in it.

    The caller holds the watchdog's lock. What an interrupted attempt left is removed first.
    """
    for leftover in state.path.glob("init-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    account = state.account
    scratch = Path(tempfile.mkdtemp(prefix="init-", dir=state.path))
    try:
        if account.differs_from_caller:
            os.chown(scratch, account.uid, account.gid)
        unfinished = scratch / "data"
        _run_initdb(binaries, account, scratch, passwords[SUPERUSER], durable=durable)
        _create_roles(binaries, account, unfinished, passwords)
        target = state.data_dir(binaries.major)
        unfinished.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _run_initdb(
    binaries: ServerBinaries, account: ServerAccount, scratch: Path, password: str, *, durable: bool
) -> None:
    password_path = scratch / "superuser"
    fd = os.open(password_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        if account.differs_from_caller:
            os.fchown(fd, account.uid, account.gid)
        file.write(password + "\n")
    # Sorting and case must not depend on the host's C library: an index would be wrong elsewhere.
    collation = (
        ("--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        if binaries.major >= _FIRST_MAJOR_WITH_BUILTIN_COLLATION
        else ()
    )
    _run_set_up(
        account,
        (
            str(binaries.initdb),
            f"--pgdata={scratch / 'data'}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_path}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
            "--no-instructions",
            *collation,
            *(() if durable else ("--no-sync",)),
        ),
        words="",
    )


def _create_roles(
    binaries: ServerBinaries, account: ServerAccount, data_dir: Path, passwords: Mapping[str, str]
) -> None:
    # Single-user mode takes one statement a line. The passwords are of the URL-safe alphabet.
    statements = [
        f"CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS "
        f"{'CREATEROLE' if role == OWNER else 'NOCREATEROLE'} PASSWORD '{passwords[role]}';"
        for role in LOGINS
    ]
    statements += [
        f"CREATE DATABASE {DATABASE} OWNER {OWNER};",
        f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC;",
        f"GRANT CONNECT ON DATABASE {DATABASE} TO {', '.join(LOGINS)};",
        "REVOKE ALL ON DATABASE postgres FROM PUBLIC;",
    ]
    if binaries.major >= _FIRST_MAJOR_WITH_OPTIONS_OF_GRANTS:
        # To alter the logins it did not make, as a migration does; and no more than that.
        altered = ", ".join(role for role in LOGINS if role != OWNER)
        statements.append(f"GRANT {altered} TO {OWNER} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;")
    _run_set_up(
        account,
        (
            str(binaries.postgres),
            "--single",
            "-D",
            str(data_dir),
            *("-c", "exit_on_error=on"),
            *("-c", "password_encryption=scram-sha-256"),
            *("-c", "log_min_error_statement=panic"),
            "postgres",
        ),
        words="\n".join(statements) + "\n",
    )


def _run_set_up(account: ServerAccount, argv: tuple[str, ...], *, words: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - absolute program, arguments composed here
            argv,
            input=words,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env=SERVER_ENVIRONMENT,
            user=account.switch_user,
            group=account.switch_group,
            extra_groups=account.switch_groups,
            umask=0o077,
            timeout=_SET_UP_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError("PostgreSQL could not be set up in time") from None
    except OSError as error:
        raise ConfigurationError(
            f"the user '{account.name}' cannot run {argv[0]}: {error.strerror}"
        ) from None
    if done.returncode != 0:
        told = done.stderr.strip().splitlines()
        reason = told[-1] if told else "it said nothing"
        raise ConfigurationError(f"PostgreSQL could not be set up: {reason}")
