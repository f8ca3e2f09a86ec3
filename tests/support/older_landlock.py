"""A zygote that is told of an older Landlock than there is, and asks only that much of it."""

from pathlib import Path

_OLD_KERNEL = """
import os, sys
os.environ.clear()
sys.path.insert(0, {root!r})
from app.sandbox import zygote
from app.sandbox.kernel_calls import LinuxKernel
class Old(LinuxKernel):
    def call(self, name, *arguments):
        if name == "landlock_create_ruleset" and arguments[2] == 1:
            return {abi}
        return super().call(name, *arguments)
zygote.LinuxKernel = Old
sys.path.pop(0)
zygote.serve_zygote(int(sys.argv[1]), sys.argv[2])
"""


def entry_with_older_landlock(abi: int, directory: Path) -> Path:
    """A program to start zygotes with, in place of the shipped one."""
    entry = directory / "older_landlock_entry.py"
    entry.write_text(_OLD_KERNEL.format(root=str(Path(__file__).parents[2]), abi=abi))
    return entry
