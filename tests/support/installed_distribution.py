"""A distribution of tools, laid down where an installer would put it."""

from collections.abc import Mapping
from pathlib import Path


def installed(
    scratch: Path, module: str, sources: Mapping[str, str], tools: Mapping[str, str]
) -> Path:
    """Write it below `scratch`, which is the directory to put on the path.

    `sources` are files by name, `tools` entry points of `meshflow.tools` by the tool's name.
    """
    place = f"{module}-1.0.dist-info"
    points = "".join(f"{name} = {what}\n" for name, what in tools.items())
    files = {
        **sources,
        f"{place}/METADATA": f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n",
        f"{place}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{place}/INSTALLER": "tests\n",
        f"{place}/entry_points.txt": f"[meshflow.tools]\n{points}",
    }
    for name, text in files.items():
        file = scratch / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return scratch
