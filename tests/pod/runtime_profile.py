"""Loads the container runtime's default seccomp profile into this process, through libseccomp.

Not our own filter writer: what the sandbox is tested under must not share its mistakes.
"""

import ctypes
import errno
import tomllib
from pathlib import Path

_PROFILE = Path(__file__).with_name("runtime_default.toml")
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_UNKNOWN = -1
_CMP_LT, _CMP_EQ, _CMP_MASKED_EQ = 2, 4, 7
_ARCH_X86, _ARCH_X32, _ARCH_ARM = 0x40000003, 0x4000003E, 0x40000028
_SUB_ARCHITECTURES = {"x86_64": (_ARCH_X86, _ARCH_X32), "aarch64": (_ARCH_ARM,)}
_ATTRIBUTE_NO_NEW_PRIVS, _ATTRIBUTE_BAD_ARCHITECTURE = 3, 2


class _Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp` of libseccomp 2."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class RuntimeDefault:
    """The profile as a libseccomp filter. Needs libseccomp 2 (Debian: libseccomp2)."""

    def __init__(self, machine: str) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._filter = ctypes.c_void_p(self._library.seccomp_init(_ERRNO | errno.EPERM))
        if self._filter.value is None:
            raise OSError("libseccomp made no filter")
        for architecture in _SUB_ARCHITECTURES[machine]:
            self._done(self._library.seccomp_arch_add(self._filter, architecture))
        self.unknown: list[str] = []  # to this libseccomp, and so refused here
        self._rules()

    def load(self) -> None:
        """Put it over this process, for good; sets no_new_privs as Kubernetes does."""
        self._done(self._library.seccomp_attr_set(self._filter, _ATTRIBUTE_NO_NEW_PRIVS, 1))
        self._done(self._library.seccomp_load(self._filter))

    def _rules(self) -> None:
        told = tomllib.loads(_PROFILE.read_text(encoding="utf-8"))
        for name in told["allowed"].split():
            self._allow(name)
        families = _Comparison(0, _CMP_LT, told["socket_families_below"], 0)
        self._allow("socket", families)
        for family in told["socket_families"]:
            self._allow("socket", _Comparison(0, _CMP_EQ, family, 0))
        for value in told["personalities"]:
            self._allow("personality", _Comparison(0, _CMP_EQ, value, 0))
        self._allow("clone", _Comparison(0, _CMP_MASKED_EQ, told["clone_namespace_flags"], 0))
        self._rule(_ERRNO | errno.ENOSYS, "clone3")

    def _allow(self, name: str, *comparisons: _Comparison) -> None:
        self._rule(_ALLOW, name, *comparisons)

    def _rule(self, action: int, name: str, *comparisons: _Comparison) -> None:
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number == _UNKNOWN:
            self.unknown.append(name)
            return
        array = (_Comparison * len(comparisons))(*comparisons)
        self._done(
            self._library.seccomp_rule_add_array(
                self._filter, ctypes.c_uint32(action), number, len(comparisons), array
            )
        )

    @staticmethod
    def _done(answer: int) -> None:
        if answer < 0:
            raise OSError(-answer, "libseccomp refused")
