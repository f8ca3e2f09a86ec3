"""The policy that docs/policies.md shows is one, and keeps its golden case."""

import re
from pathlib import Path

from tests.support.policy_words import LOADER

PAGE = Path(__file__).parents[3] / "docs" / "policies.md"


def test_the_policy_of_the_page_is_taken_in() -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    loaded = LOADER.read(shown.encode(), is_toml=True)
    assert [rule.rule_id for rule in loaded.bundle.tenant_rules] == ["own.fourth-file"]
    assert len(loaded.bundle.golden) == 1
