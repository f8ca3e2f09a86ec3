"""A small whole policy, and a question that its own rule answers: for documentation and tests."""

from typing import Final

from app.domain.run import JsonObject

QUESTION_EXAMPLE: Final[JsonObject] = {
    "point": "tool.call",
    "tool": {"name": "write_file", "effect": "write", "is_confined": True, "calls_made": 3},
}
POLICY_EXAMPLE: Final[JsonObject] = {
    "description": "No fourth file without a person.",
    "default_mode": "standard",
    "tenant_rules": [
        {
            "id": "own.fourth-file",
            "point": "tool.call",
            "when": 'tool.name == "write_file" && tool.calls_made >= 3',
            "verdict": "require_approval",
            "reason": "own:many_files",
            "owasp": "ASI02",
        }
    ],
    "golden": [
        {"name": "a-fourth-file", "features": QUESTION_EXAMPLE, "verdict": "require_approval"},
    ],
}
