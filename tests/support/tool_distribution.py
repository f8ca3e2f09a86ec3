"""A tiny distribution that offers tools by entry point, installed into a scratch directory.

Among its tools is one that keeps the contract; each of the others breaks it in its own way.
"""

from pathlib import Path

from tests.support.installed_distribution import installed

MODULE = "mf_probe_tools"
_TOOL = """
from app.domain.run import JsonObject
from app.domain.label import Label
from app.domain.step import Effect, Role, ToolSpec
from app.sandbox.workspace import Workspace

SPEC = ToolSpec(
    name="probe_echo",
    description="Says a word again.",
    effect=Effect.NONE,
    parameters={
        "type": "object",
        "properties": {"word": {"type": "string", "maxLength": 100}},
        "required": ["word"],
        "additionalProperties": False,
    },
    roles={"word": Role.CONTENT},
    labels={"": Label()},
)


class Echo:
    def __init__(self, spec: ToolSpec) -> None:
        self.spec = spec

    async def run(self, arguments: JsonObject, workspace: Workspace) -> str:
        return f"again: {arguments['word']}"
"""
_MODULES = {
    "tool": _TOOL,
    "good": "from .tool import SPEC, Echo\nTOOL = Echo(SPEC)\n",
    "other_name": "from .tool import SPEC, Echo\nTOOL = Echo(SPEC)\n",
    "no_roles": (
        "from dataclasses import replace\nfrom .tool import SPEC, Echo\n"
        "TOOL = Echo(replace(SPEC, name='probe_no_roles', roles={}))\n"
    ),
    "open_schema": (
        "from dataclasses import replace\nfrom .tool import SPEC, Echo\n"
        "TOOL = Echo(replace(SPEC, name='probe_open', parameters={'type': 'object'}))\n"
    ),
    "pattern": (
        "from dataclasses import replace\nfrom .tool import SPEC, Echo\n"
        "WORD = {'type': 'string', 'maxLength': 9, 'pattern': '(?=a)a'}\n"
        "PARAMETERS = {**SPEC.parameters, 'properties': {'word': WORD}}\n"
        "TOOL = Echo(replace(SPEC, name='probe_pattern', parameters=PARAMETERS))\n"
    ),
    "hidden": (
        "from dataclasses import replace\nfrom .tool import SPEC, Echo\n"
        "TOOL = Echo(replace(SPEC, name='probe_hidden', description='Says\\u200b it.'))\n"
    ),
    "raises": "raise RuntimeError('/srv/somewhere/secret')\n",
    "klass": "from .tool import Echo\nTOOL = Echo\n",
    "plain": (
        "from .tool import SPEC\n\n\nclass Plain:\n    spec = SPEC\n\n"
        "    def run(self, arguments, workspace):\n        return ''\n\n\nTOOL = Plain()\n"
    ),
    "nothing": "TOOL = None\n",
}
_OFFERED = {
    "probe_echo": "good:TOOL",
    "probe_other": "other_name:TOOL",
    "probe_no_roles": "no_roles:TOOL",
    "probe_open": "open_schema:TOOL",
    "probe_pattern": "pattern:TOOL",
    "probe_hidden": "hidden:TOOL",
    "probe_raises": "raises:TOOL",
    "probe_class": "klass:TOOL",
    "probe_plain": "plain:TOOL",
    "probe_nothing": "nothing:TOOL",
    "probe_gone": "good:NO_SUCH",
    "calculator": "good:TOOL",
}


def installed_tools(scratch: Path) -> Path:
    """Put its files where an installer would, and give the directory to put on the path."""
    sources = {f"{MODULE}/__init__.py": ""}
    sources |= {f"{MODULE}/{name}.py": text for name, text in _MODULES.items()}
    tools = {name: f"{MODULE}.{what}" for name, what in _OFFERED.items()}
    return installed(scratch, MODULE, sources, tools)
