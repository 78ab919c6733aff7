from __future__ import annotations

import pytest
from headwater_protocol.errors import StorageError
from headwater_server.lifecycle import ExitCode, exit_code_of


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageError(code="disk_failed"), ExitCode.STORAGE_FAILED),
        (StorageError(code="log_taken"), ExitCode.LOG_TAKEN),
        (StorageError(code="directory_in_use"), ExitCode.LOG_TAKEN),
        (RuntimeError("the engine has ended"), ExitCode.STORAGE_FAILED),
    ],
)
def test_a_log_that_somebody_else_has_is_told_from_a_failed_disk(error: Exception, code: ExitCode) -> None:
    assert exit_code_of(error) is code
    assert len(set(ExitCode)) == len(ExitCode.__members__)
