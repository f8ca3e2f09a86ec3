"""What a server at rest does not carry: memory that every deployment would pay for."""

import subprocess
import sys

SCRIPT = """
import sys
import app.cli.web_server
import app.main
unwanted = {"alembic", "mako", "pygments", "anthropic", "opentelemetry.sdk", "requests"}
print(*sorted(unwanted & sys.modules.keys()))
"""


def test_a_server_does_not_carry_what_only_migrations_and_providers_need() -> None:
    argv = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(argv, capture_output=True, check=True, text=True)
    assert done.stdout.split() == []
