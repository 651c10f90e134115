"""Mutants of a run's life: what is saved with a state, what comes back, what is told of a failure."""

from __future__ import annotations

from typing import Final

from mutants import Mutant

SAVED: Final = [
    Mutant(
        "types once found ordinary stay so",
        "a resource whose type is registered late is pickled with its secrets",
        ["unit/test_codec.py::test_a_type_that_is_registered_later"],
        {
            "resumable/values/picklers.py": """
-    return Reducer(registry.unhandled, reduce).override
+    return Reducer(set(registry.unhandled), reduce).override
""",
        },
    ),
    Mutant(
        "a result is counted before it can be saved",
        "a result that is refused leaves a gap, and the run is damaged",
        ["feature/test_results.py::test_a_refused_result_leaves_no_gap"],
        {
            "resumable/runs/saving.py": """
+        self.write.results += made.has_result
         result = self._settings.codec.encode(made.result, root="result") if made.has_result else None
@@
-            result_flags, packed = self._pack(result, f"result.{self.write.results}")
+            result_flags, packed = self._pack(result, f"result.{self.write.results - 1}")
@@
-            payload = join_result(self.write.results, payload, packed)
+            payload = join_result(self.write.results - 1, payload, packed)
""",
        },
    ),
    Mutant(
        "finished before the value is kept",
        "a kill leaves a finished run without its value",
        ["feature/test_killed_at_the_end.py::test_a_finished_job_is_not_run_again[behind the flush]"],
        {
            "resumable/runs/live.py": """
+        self._status = FINISHED
+        self._home.writer.flush(self._handoff)
         self.journal.append(RETURN, flags, payload)
""",
        },
    ),
    Mutant(
        "a migration is not noted",
        "a state is migrated twice",
        ["feature/test_version_migrate.py::test_a_migrated_state_is_not_migrated_again"],
        {
            "resumable/runs/opening.py": """
-        meta["versions"] = [*meta["versions"], (start.seq, request.version)]
""",
        },
    ),
    Mutant(
        "generators are not put back",
        "a resumed run draws other numbers",
        ["feature/test_global_generators.py::test_a_resumed_run_is_bit_identical"],
        {
            "resumable/runs/live.py": """
-            self._watch.restore(self._generators)
""",
        },
    ),
    Mutant(
        "generators are saved once",
        "a resumed run draws the numbers of its start",
        ["feature/test_global_generators.py::test_a_resumed_run_is_bit_identical"],
        {
            "resumable/runs/opening.py": """
-            left.rng or meta["rng"], True, _version_at(meta, left.seq),
+            meta["rng"], True, _version_at(meta, left.seq),
""",
        },
    ),
    Mutant(
        "a file is not cut",
        "lines that were written after the last checkpoint stand there twice",
        ["resources/test_files.py::test_a_written_file_is_cut_to_its_checkpoint"],
        {
            "resumable/values/handlers/files.py": """
-            os.ftruncate(file.fileno(), description["length"])
+            pass
""",
        },
    ),
    Mutant(
        "a run that is over still saves",
        "a task that outlives its run writes into another one's journal",
        ["feature/test_async.py::test_a_task_that_outlives_its_run_is_told"],
        {
            "resumable/runs/saving.py": """
-        if self._over:
+        if False:
""",
        },
    ),
    Mutant(
        "changed arguments are not noticed",
        "a run goes on with a state that belongs to other arguments",
        ["feature/test_identity.py::test_changed_arguments_under_a_name_raise"],
        {
            "resumable/runs/opening.py": """
-    if None in (recorded, identity.digest) or recorded == identity.digest or request.on_change == "continue":
+    if True:
""",
        },
    ),
    Mutant(
        "a refused checkpoint takes the generators along",
        "the next state is saved without them, and a resumed run draws other numbers",
        ["feature/test_global_generators.py::test_a_refused_checkpoint_keeps_no_generators_back"],
        {
            "resumable/runs/saving.py": """
-            self._drawn = self._watch.snapshot_if_changed() or self._drawn
+            self._drawn = self._watch.snapshot_if_changed()
""",
        },
    ),
    Mutant(
        "generators and state may stand apart",
        "a resumed run draws the numbers of an earlier checkpoint",
        ["feature/test_global_generators.py::test_generators_and_state_are_in_one_segment"],
        {
            "resumable/runs/saving.py": """
-            if not self.write.fits(len(payload) + len(generators)):
-                self.journal.roll(len(payload) + len(generators))
""",
        },
    ),
    Mutant(
        "a forked child saves",
        "two processes write one journal",
        ["feature/test_fork.py::test_a_run_in_progress_is_the_parents"],
        {
            "resumable/runs/saving.py": """
-        if self._forks != fork_count():
+        if False:
""",
        },
    ),
    Mutant(
        "a failure is not handed over",
        "a power cut takes why a run failed, and its last states",
        ["feature/test_resume.py::test_the_state_is_in_the_log_after_an_exception"],
        {
            "resumable/runs/live.py": """
             if not isinstance(error, DriverClosedError):    # closing has flushed
-                self._home.writer.flush(self._handoff)
+                pass
""",
        },
    ),
]

SECRETS: Final = [
    Mutant(
        "locals of a failure are kept as they are",
        "a password in a local stands in the log",
        ["unit/test_failure.py::test_secrets_are_masked_everywhere"],
        {
            "resumable/values/excerpt.py": """
-    (masked,) = _masked({name: copy}).values()
-    return Excerpt(masked, copier.exact, budget - copier.left)
+    return Excerpt(copy, copier.exact, budget - copier.left)
""",
        },
    ),
    Mutant(
        "messages of a failure are kept as they are",
        "a password in an exception stands in the log",
        ["unit/test_failure.py::test_secrets_are_masked_everywhere"],
        {
            "resumable/runs/failure.py": """
-        return _shortened(secrets.mask_text(text), _LIMIT)
+        return _shortened(text, _LIMIT)
""",
        },
    ),
]

MUTANTS: Final = [*SAVED, *SECRETS]
