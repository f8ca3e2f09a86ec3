"""How strictly a run is held: four modes, and which of two is the tighter one."""

from enum import StrEnum


class Mode(StrEnum):
    """What the gate does with its verdicts. Every mode judges by the same rules."""

    OBSERVE = "observe"  # what a run may choose to do is judged and recorded, not stopped
    STANDARD = "standard"  # what nobody with authority stated is asked for
    STRICT = "strict"  # and every effect is, once something untrusted was seen
    PLAN = "plan"  # as standard, and no effect outside the plan that was handed in


_TIGHTNESS = {Mode.OBSERVE: 0, Mode.STANDARD: 1, Mode.PLAN: 2, Mode.STRICT: 3}


def tightest(*modes: Mode | None) -> Mode | None:
    """The tightest of those that are set; None when none is."""
    return max(
        (mode for mode in modes if mode is not None), key=_TIGHTNESS.__getitem__, default=None
    )


def may_tighten(granted: Mode, asked: Mode) -> bool:
    """Whether a caller may ask for this mode where that one is set: only upwards.

    `plan` counts as at least `standard`; under `strict` it would be less.
    """
    return _TIGHTNESS[asked] >= _TIGHTNESS[granted]
