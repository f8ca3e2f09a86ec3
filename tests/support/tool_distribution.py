"""A tiny distribution that offers tools by entry point, installed into a scratch directory.

Among its tools is one that keeps the contract; each of the others breaks it in its own way.
"""

from pathlib import Path

MODULE = "mf_probe_tools"
_TOOL = """
from app.domain.run import JsonObject
from app.domain.step import Effect, Label, Role, ToolSpec
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
    place = f"{MODULE}-1.0.dist-info"
    points = "".join(f"{name} = {MODULE}.{what}\n" for name, what in _OFFERED.items())
    files = {
        f"{MODULE}/__init__.py": "",
        **{f"{MODULE}/{name}.py": text for name, text in _MODULES.items()},
        f"{place}/METADATA": "Metadata-Version: 2.1\nName: mf-probe-tools\nVersion: 1.0\n",
        f"{place}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{place}/INSTALLER": "tests\n",
        f"{place}/entry_points.txt": f"[meshflow.tools]\n{points}",
    }
    for name, text in files.items():
        file = scratch / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return scratch
