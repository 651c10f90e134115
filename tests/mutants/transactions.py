"""Mutants of loops in transactions, and of keys for servers."""

from __future__ import annotations

from typing import Final

from mutants import Mutant

TRANSACTION: Final = "feature/test_transaction.py"
KEYS: Final = "feature/test_transaction_keys_cut.py"

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
        "a row counts keys and has none",
        "after a power cut the items of keys that were not on disk are done again, or nobody can tell which they are",
        [f"{KEYS}::test_a_power_cut_that_takes_all_it_can", f"{KEYS}::test_a_directory_from_a_copy"],
        {
            "resumable/work/mark_keys.py": """
-        return KeysMark(self._first, self._keys.entries(self._first, done), self._total)
+        return KeysMark(self._first, b"", self._total)
""",
        },
    ),
    Mutant(
        "a row drops keys that are not on disk",
        "after a power cut nobody can tell which items of a loop in a transaction are done",
        [f"{KEYS}::test_a_power_cut_that_takes_all_it_can"],
        {
            "resumable/work/mark_keys.py": """
-            self._run.sync_keys()
""",
        },
    ),
    Mutant(
        "keys of other items count",
        "a state directory that was put back skips items that were never done",
        [f"{KEYS}::test_the_keys_of_other_items"],
        {
            "resumable/work/mark_keys.py": """
-    if found.total != mark.total and not continues:
+    if False:
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
