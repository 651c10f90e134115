"""What the package logs."""

from __future__ import annotations

import logging

import pytest

from resumable import Driver, checkpoint


def test_log_records_hold_no_known_secret(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret of the environment that a run was named after is masked in what the package logs."""
    monkeypatch.setenv("APP_SECRET", "hunter2-c4nary")

    def job(*, state=0):
        yield checkpoint(1)

    with caplog.at_level(logging.INFO, "resumable"), Driver(":memory:") as driver:
        driver.run(job, name="of hunter2-c4nary")
        driver.run(job, name="ordinary")
    messages = [record.getMessage() for record in caplog.records]
    assert "hunter2" not in "\n".join(messages)
    assert "finished run 'of ***' after checkpoint 1" in messages
    assert "finished run 'ordinary' after checkpoint 1" in messages
