"""The words of `meshflow policy`."""

import argparse
from pathlib import Path


def add_policy_arguments(
    policy: argparse.ArgumentParser,
) -> list[argparse.ArgumentParser]:
    """Every action and its options; those that speak to a server are given back."""
    actions = policy.add_subparsers(dest="action", required=True, metavar="ACTION")
    lint = actions.add_parser(
        "lint", help="say what is amiss with a policy, without a server", allow_abbrev=False
    )
    test = actions.add_parser(
        "test", help="ask a policy its own golden cases, without a server", allow_abbrev=False
    )
    simulate = actions.add_parser(
        "simulate",
        help="ask a policy what was really asked, beside the one in force",
        allow_abbrev=False,
    )
    activate = actions.add_parser(
        "activate",
        help="store a policy and bring it into force",
        description="Exit code: 0 in force, 3 another key has to confirm it.",
        allow_abbrev=False,
    )
    confirm = actions.add_parser(
        "confirm", help="confirm what another key asked for", allow_abbrev=False
    )
    for command in (lint, test, simulate, activate):
        command.add_argument("file", type=Path, metavar="FILE", help="TOML (*.toml) or JSON")
    activate.add_argument("--id", metavar="NAME", help="default: the file's own, or `default`")
    simulate.add_argument("--since", metavar="TIME", help="RFC 3339; default: seven days ago")
    simulate.add_argument("--until", metavar="TIME", help="RFC 3339; default: now")
    simulate.add_argument("--agent", metavar="NAME", help="runs of this agent alone")
    simulate.add_argument("--json", action="store_true", help="the report for machines")
    confirm.add_argument("policy", metavar="POLICY", help="the policy's id")
    confirm.add_argument("activation", metavar="ACTIVATION", help="its id, pol_...")
    return [simulate, activate, confirm]
