"""What Monty adds to a program's output becomes a last value or an error's own text."""

import pytest

from app.sandbox.execution import ExecResult, ExecStatus
from app.tools.monty_output import without_marks

_MARK = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT}"


@pytest.mark.parametrize(
    ("status", "stdout", "stderr", "shown", "said"),
    [
        (ExecStatus.OK, "1\n", f"92.909\u03bcs {_MARK} 4\n", "1\n4\n", ""),
        (ExecStatus.OK, "1\n", f"2.8ms {_MARK} None\n", "1\n", ""),
        (ExecStatus.OK, "", f"own words\n1.5s {_MARK} 'x'\n", "'x'\n", "own words\n"),
        (ExecStatus.OK, "", f"3ms {_MARK} fake\n7ns {_MARK} 5\n", "5\n", f"3ms {_MARK} fake\n"),
        (
            ExecStatus.ERROR,
            "",
            f'120.96\u03bcs {_MARK} error: Trace:\n  File "/proc/self/fd/0", line 1\nKeyError\n',
            "",
            'Trace:\n  File "<python>", line 1\nKeyError\n',
        ),
        (ExecStatus.ERROR, "", "error:\nSyntaxError: x\n", "", "SyntaxError: x\n"),
        (ExecStatus.OK, "", f"error:\n1s {_MARK} None\n", "", "error:\n"),
        (ExecStatus.TIMEOUT, "a", "", "a", ""),
    ],
)
def test_a_result_reads_as_the_other_interpreters_does(
    status: ExecStatus, stdout: str, stderr: str, shown: str, said: str
) -> None:
    told = without_marks(
        ExecResult(status=status, stdout=stdout.encode(), stderr=stderr.encode(), exit_code=0)
    )
    assert (told.stdout.decode(), told.stderr.decode()) == (shown, said)
