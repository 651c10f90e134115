"""The logger of the package, `logging.getLogger("resumable")`, which writes no secrets."""

from __future__ import annotations

import logging

from resumable.values.secrets import mask_text


def _mask(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    masked = mask_text(text)
    if masked != text:
        record.msg, record.args = masked, ()
    return True


logger = logging.getLogger("resumable")
logger.addFilter(_mask)
