"""Mutants of loops."""

from __future__ import annotations

from typing import Final

from mutants import Mutant

ITEMS: Final = "feature/test_items.py"

MUTANTS: Final = [
    Mutant(
        "a mark counts the item that is given out",
        "the item that was at hand at a crash is never done",
        [f"{ITEMS}::test_what_is_done_is_left_out"],
        {
            "_fastlog/loop.pxi": """
-                if journal.save_number(self.done + self.at_hand) != ENCODED:
+                if journal.save_number(self.done + self.at_hand + 1) != ENCODED:
""",
        },
    ),
    Mutant(
        "a loop that is left is not noticed",
        "its run stays locked for as long as the process lives",
        [f"{ITEMS}::test_a_loop_that_is_left"],
        {
            "_fastlog/loop.pxi": """
-    tell_left(<LoopIterator>left, &kind, &error, &trace)
@@
-cdef void tell_left(LoopIterator left, PyObject** kind, PyObject** error, PyObject** trace) noexcept:
-    if left.source is not None and not left.over:
-        left.over = True
-        left.loop.stop(raised(kind, error, trace))      # raises nothing; what it does all the same is shown, as for __del__
""",
        },
    ),
    Mutant(
        "whoever holds the iterator is not looked for",
        "enumerate counts from 0 after a resume",
        [f"{ITEMS}::test_enumerate_and_zip_are_refused"],
        {
            "resumable/work/consumers.py": """
-    while (found := _holder(holder)) is not None:
+    while (found := None) is not None:
""",
        },
    ),
    Mutant(
        "the caller's instruction is not looked at",
        "list(items) marks all items done before the first one is",
        [f"{ITEMS}::test_other_consumers_mark_nothing"],
        {
            "resumable/work/consumers.py": """
-    return frame.f_code.co_code[frame.f_lasti] in _FOR and _belongs(frame.f_code, code)
+    return True
""",
        },
    ),
    Mutant(
        "samples are not compared",
        "items that were put in front are skipped",
        [f"{ITEMS}::test_changed_items"],
        {
            "resumable/work/samples.py": """
-    if None not in (known, found) and known != found:
+    if False:
""",
        },
    ),
    Mutant(
        "a state is saved without its item's mark",
        "a sum over a loop that was killed is not the sum",
        [f"{ITEMS}::test_state_comes_back"],
        {
            "_fastlog/loop.pxi": """
-        return done if self.values is None and not self.parts else (done, self.values, self.parts)
+        return done if self.values is None and not self.parts else (done - 1, self.values, self.parts)
""",
        },
    ),
]
