"""What the probe says of a kernel, answer by answer, and which sentence it becomes."""

import errno
import os
from collections.abc import Sequence

import pytest

from app.domain.sandbox_mode import SandboxMode, exact_mode
from app.sandbox import runner_assembly
from app.sandbox.capabilities import probe
from app.sandbox.execution import EngineName
from app.sandbox.kernel_calls import LinuxKernel
from app.sandbox.runner_assembly import build_runner, engine_gaps
from app.sandbox.sandbox_profile import SandboxProfile
from app.sandbox.sandbox_settings import SandboxSettings
from app.sandbox.syscall_tables import ARCHITECTURES, Architecture


class LackingKernel(LinuxKernel):
    """This machine's kernel but for what it is told to refuse."""

    def __init__(
        self, refused: Sequence[str] = (), code: int = 0, *, is_known: bool = True
    ) -> None:
        super().__init__()
        self._refused = refused
        self._code = code
        self._is_known = is_known

    @property
    def architecture(self) -> Architecture | None:
        return super().architecture if self._is_known else None

    def call(self, name: str, *arguments: int) -> int:
        if name in self._refused:
            raise OSError(self._code, os.strerror(self._code))
        return super().call(name, *arguments)

    def prctl(self, option: int, argument: int = 0) -> int:
        if f"prctl {option}" in self._refused:
            raise OSError(self._code, os.strerror(self._code))
        return super().prctl(option, argument)


def _refusing_opener(_: int, __: Sequence[str], ___: int, ____: int) -> int:
    raise OSError(errno.ENOSYS, "gone")


def test_a_whole_kernel_has_no_gap() -> None:
    found = probe(LackingKernel())
    assert found.gap() is None
    assert found.landlock.value >= 1
    assert (found.seccomp.seen, found.no_new_privs.seen, found.openat2.seen) == ("offered",) * 3
    assert found.uid == os.geteuid()
    assert EngineName.NATIVE not in engine_gaps(found, SandboxMode.STRICT)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP])
@pytest.mark.parametrize(
    ("refused", "word"),
    [
        ("landlock_create_ruleset", "Landlock"),
        ("seccomp", "seccomp"),
        ("prctl 21", "seccomp"),
        ("prctl 39", "no_new_privs"),
    ],
)
def test_what_is_refused_is_named_with_the_kernels_own_answer(
    refused: str, word: str, code: int
) -> None:
    found = probe(LackingKernel((refused,), code))
    gap = engine_gaps(found, SandboxMode.STRICT)[EngineName.NATIVE]
    assert word in gap
    assert errno.errorcode[code] in gap
    assert "docs/operations/sandbox.md" in gap
    assert EngineName.NATIVE not in engine_gaps(found, SandboxMode.OFF_UNSAFE)


def test_a_machine_without_a_table_has_no_engine() -> None:
    assert "are not known" in str(probe(LackingKernel(is_known=False)).gap())


def test_files_need_no_openat2_and_programs_neither() -> None:
    found = probe(LackingKernel(), opener=_refusing_opener)
    assert found.openat2.seen == "ENOSYS"
    assert found.gap() is None


def test_root_without_an_account_to_run_as_has_no_engine_even_without_walls() -> None:
    found = probe(LackingKernel())
    for mode in SandboxMode:
        gaps = engine_gaps(found, mode, no_account="no account without power exists")
        assert gaps[EngineName.NATIVE].startswith("no account without power exists")


def test_what_cannot_be_confined_is_no_engine_of_any_kind() -> None:
    found = probe(LackingKernel(("seccomp",), errno.EPERM))
    assert set(engine_gaps(found, SandboxMode.STRICT)) == set(EngineName)


STRICT = SandboxSettings(mode=SandboxMode.STRICT, python_engine=None)


def test_a_runner_without_the_extra_or_a_list_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And only then: each engine's reason is its own."""
    full = build_runner(STRICT, account=None, executable=("/usr/bin/sort",))
    assert full.unavailable(EngineName.VIRTUAL_SHELL) is None
    assert full.unavailable(EngineName.EXEC) is None
    monkeypatch.setattr(runner_assembly, "_BASHKIT", "0.0.1")
    bare = build_runner(STRICT, account=None)
    assert bare.unavailable(EngineName.NATIVE) is None
    assert "extra `shell`" in str(bare.unavailable(EngineName.VIRTUAL_SHELL))
    assert "exec.toml" in str(bare.unavailable(EngineName.EXEC))


def test_only_the_engine_that_is_for_it_executes_anything() -> None:
    profile = SandboxProfile(executable=("/usr/bin/sort",))
    allowed = {engine: profile.for_engine(engine).executable for engine in EngineName}
    assert [engine for engine, paths in allowed.items() if paths] == [EngineName.EXEC]
    assert not profile.for_engine(EngineName.VIRTUAL_SHELL).sees_links


def test_only_the_exact_words_are_modes() -> None:
    assert exact_mode("strict") is SandboxMode.STRICT
    assert exact_mode("off-unsafe") is SandboxMode.OFF_UNSAFE
    for word in ("", "off", "OFF-UNSAFE", "off_unsafe", " off-unsafe", "Strict", "0"):
        assert exact_mode(word) is None
    assert set(ARCHITECTURES) == {"x86_64", "aarch64"}
