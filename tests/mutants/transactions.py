"""Mutants of loops in transactions, and of keys for servers."""

from __future__ import annotations

from typing import Final

from mutants import Mutant

TRANSACTION: Final = "feature/test_transaction.py"

MUTANTS: Final = [
    Mutant(
        "the log's mark counts before the database's",
        "an item that is committed and was not published is written twice",
        [f"{TRANSACTION}::test_kill_at_every_point"],
        {
            "resumable/work/transaction.py": """
             self._append_result(loop, run, mark, continues)
-            return mark.state
+            return None
""",
        },
    ),
    Mutant(
        "a transaction is marked before the files",
        "the database has what the other parts of the loop said an item ago",
        [f"{TRANSACTION}::test_other_parts_are_in_the_database"],
        {
            "resumable/work/parts.py": """
-        for part in reversed(self._joined):     # one that leads comes last: it sees what the others have said
+        for part in self._joined:     # whichever comes first
""",
        },
    ),
    Mutant(
        "an idempotency key does not wait for the disk",
        "after a power cut the same item asks a server under another key, and its effect is had twice",
        ["feature/test_idempotency.py::test_the_disk_knows_the_run_first"],
        {
            "resumable/work/idempotency.py": """
-    run.secure_beginning()
""",
        },
    ),
]
