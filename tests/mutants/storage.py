"""Mutants of the way from the journal to the log, and of the locks.

Not here: a lock file opened without O_CLOEXEC. Python opens every file so (PEP 446) whatever the flags are, so that
mutant changes nothing; the one here makes the descriptor inheritable.
"""

from __future__ import annotations

from typing import Final

from mutants import Mutant

LOCK: Final = "unit/test_lock.py"
LOG: Final = "unit/test_lmdb_log.py"

HANDING_OVER: Final = [
    Mutant(
        "segments are used again before the commit",
        "states that the log lacks are overwritten",
        ["feature/test_retention.py::test_keep_states_none_keeps_all"],
        {
            "resumable/storage/journal.py": """
-        if (live.index, live.end) <= self.handed:
+        if live.end:
""",
        },
    ),
    Mutant(
        "a segment that was taken in vain is read",
        "the log meets damage where memory ran out as a segment was begun",
        ["unit/test_no_memory.py::test_a_segment_that_a_roll_took_in_vain"],
        {
            "resumable/storage/journal.py": """
-                segment, victim.end = victim.segment, HEADER
+                segment = victim.segment
""",
        },
    ),
    Mutant(
        "results do not keep their segment",
        "results that the log lacks are overwritten",
        ["feature/test_results.py::test_results_wait_for_the_log"],
        {
            "resumable/storage/journal.py": """
-        return not live.due and self._keep is not None and int(self.write.seq) - live.last_seq >= self._keep
+        return self._keep is not None and int(self.write.seq) - live.last_seq >= self._keep
""",
        },
    ),
    Mutant(
        "a hand-over counts before the commit",
        "after a commit that failed the log lacks what was in it",
        ["feature/test_failed_commits.py::test_a_failed_commit_is_made_up_for"],
        {
            "resumable/storage/handoff.py": """
         self._sync_outputs()
+        self.journal.committed(batch.position, batch.record.seq)
+        self.record = batch.record
         return batch
""",
        },
    ),
    Mutant(
        "what was committed is not read back",
        "a segment is given up for entries that the log does not have",
        ["feature/test_failed_commits.py::test_a_log_that_forgets_stops_the_run"],
        {
            "resumable/storage/writer.py": """
-                if self._store.get(key) != value:
+                if False:
""",
        },
    ),
    Mutant(
        "a failing log does not stop the job",
        "a job goes on although nothing of it reaches the log",
        ["feature/test_failed_commits.py::test_a_refused_commit_stops_the_job_at_its_next_checkpoint"],
        {
            "resumable/storage/journal.py": """
             self.error = error
-            self.write.attention = 1
""",
        },
    ),
    Mutant(
        "the error of the log is not raised",
        "a job goes on although nothing of it reaches the log",
        ["feature/test_failed_commits.py::test_a_failing_log_stops_a_fast_job"],
        {
            "resumable/runs/saving.py": """
         self.warn_unyielded()
-        if self.journal.error is not None:
-            raise self.journal.error
""",
        },
    ),
    Mutant(
        "a side file goes while a state needs it",
        "parts of the last state are gone",
        ["feature/test_unchanged_buffers.py::test_every_kept_state_is_whole"],
        {
            "resumable/storage/side_window.py": """
-                needed |= others
+                pass
""",
        },
    ),
    Mutant(
        "a segment stands there before it has a header",
        "a kill leaves a segment that a start takes for damage",
        ["unit/test_folder.py::test_a_segment_that_cannot_be_made_leaves_nothing"],
        {
            "resumable/storage/folder.py": """
-            fill(segment)
-            os.rename(self.path / (name + ".new"), self.path / name)
+            os.rename(self.path / (name + ".new"), self.path / name)
+            fill(segment)
""",
        },
    ),
]

LOCKS: Final = [
    Mutant(
        "the lock is a pid file",
        "two starters hold one run",
        ["crash/process/test_starters.py::test_two_starters"],
        {
            "resumable/storage/lock.py": """
-                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
+                owner = _read_owner(self.path)
+                if owner is not None and owner.may_be_alive():
+                    raise BlockingIOError
""",
        },
    ),
    Mutant(
        "a forked child keeps the lock",
        "a run stays locked after its process is dead",
        [f"{LOCK}::test_a_child_that_outlives_its_parent_holds_nothing"],
        {
            "resumable/storage/lock.py": """
-            os.close(lock._fd)
             lock._fd, lock._taken = None, False
""",
        },
    ),
    Mutant(
        "a forked child frees the lock",
        "another process starts the run while it goes on",
        [f"{LOCK}::test_a_forked_child_does_not_free_the_parents_lock"],
        {
            "resumable/storage/lock.py": """
+            fcntl.flock(lock._fd, fcntl.LOCK_UN)
             os.close(lock._fd)
             lock._fd, lock._taken = None, False
""",
        },
    ),
    Mutant(
        "started programs keep the lock",
        "a run stays locked while a program lives that its job started",
        [f"{LOCK}::test_the_file_is_private_and_not_inherited"],
        {
            "resumable/storage/lock.py": """
-            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
+            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
+            os.set_inheritable(fd, True)
+            return fd
""",
        },
    ),
    Mutant(
        "a link is followed",
        "whoever puts a link there has us make a file elsewhere",
        [f"{LOCK}::test_a_link_to_nothing_makes_nothing"],
        {
            "resumable/storage/lock.py": """
-            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
+            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
""",
        },
    ),
    Mutant(
        "a removed lock file still locks",
        "two starters hold one run, one of them by a file that is gone",
        [f"{LOCK}::test_a_folder_removed_while_starting_is_made_again"],
        {
            "resumable/storage/lock.py": """
-                self._taken = _is_at(self._fd, self.path)
+                self._taken = True
""",
        },
    ),
    Mutant(
        "the lock is freed before its file goes",
        "a starter holds a file that is nothing to the next one",
        [f"{LOCK}::test_the_file_goes_while_it_is_locked"],
        {
            "resumable/storage/lock.py": """
         try:
+            fcntl.flock(self._fd, fcntl.LOCK_UN)
             os.unlink(self.path)
             os.rmdir(self.path.parent)
""",
        },
    ),
]

THE_LOG: Final = [
    Mutant(
        "values of the log are not verified",
        "a flipped bit in the log is read as a state",
        [f"{LOG}::test_a_flipped_bit_in_a_value_is_found"],
        {
            "resumable/storage/lmdb_log.py": """
-        if stored[: _CHECKSUM.size] != _CHECKSUM.pack(crc32c(value, crc32c(key))):
+        if False:
""",
        },
    ),
    Mutant(
        "the log's checksum leaves out the key",
        "an entry under a damaged key is read as another's",
        [f"{LOG}::test_a_flipped_bit_in_a_key_is_found"],
        {
            "resumable/storage/lmdb_log.py": """
-        if stored[: _CHECKSUM.size] != _CHECKSUM.pack(crc32c(value, crc32c(key))):
+        if stored[: _CHECKSUM.size] != _CHECKSUM.pack(crc32c(value)):
@@
-    return _CHECKSUM.pack(crc32c(value, crc32c(key))) + value
+    return _CHECKSUM.pack(crc32c(value)) + value
""",
        },
    ),
    Mutant(
        "the log is opened by several at once",
        "beside an opener that is killed, another one finds the commit before the last, and commits over the last",
        ["crash/calls/test_opening.py::test_an_opener_that_is_killed"],
        {
            "resumable/storage/lmdb_log.py": """
-        with exclusively(self.path):
+        if True:
""",
        },
    ),
    Mutant(
        "the log is not compared with its census",
        "behind a page from before, a finished run is gone and runs again",
        [f"{LOG}::test_a_page_from_before_is_noticed"],
        {
            "resumable/storage/lmdb_log.py": """
-            told = difference(self._census(transaction), transaction, _FEW_ENTRIES)
+            told = None
""",
        },
    ),
    Mutant(
        "a run that ended unwritten is passed over",
        "sync() returns while a power cut can take what was acknowledged",
        ["feature/test_failed_commits.py::test_sync_knows_of_runs_that_ended"],
        {
            "resumable/storage/writer.py": """
-            if run.record.handed < run.journal.position:
+            if False:
""",
        },
    ),
    Mutant(
        "an environment that failed is used on",
        "LMDB answers every later call with an error, or worse",
        [f"{LOG}::test_an_operation_is_made_again_in_a_fresh_environment"],
        {
            "resumable/storage/lmdb_log.py": """
         except lmdb.Error:
-            self._close_environment()
+            pass
""",
        },
    ),
    Mutant(
        "the environment is kept across a fork",
        "a child takes away what its parent's LMDB relies on",
        [f"{LOG}::test_no_environment_gets_into_a_child"],
        {
            "resumable/storage/lmdb_log.py": """
-        if not store._users:
-            store._drop_environment()
+        pass
""",
        },
    ),
]

MUTANTS: Final = [*HANDING_OVER, *LOCKS, *THE_LOG]
