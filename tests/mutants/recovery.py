"""Mutants of what is trusted after a crash, and of what is given up before it is safe elsewhere."""

from __future__ import annotations

from typing import Final

from mutants import Mutant

CUT: Final = "feature/test_power_cut.py"
TORN: Final = "feature/test_power_cut_torn.py"
LIVES: Final = "feature/test_power_cut_lives.py"
SYNC_FILES: Final = "feature/test_power_cut_sync.py"
DAMAGED: Final = "feature/test_damaged_runs.py"
BUFFERS: Final = "feature/test_unchanged_buffers.py"

RECOVERY: Final = [
    Mutant(
        "the boot is not compared",
        "after a power cut the journal is taken for the truth",
        [f"{TORN}::test_a_torn_segment_is_no_end"],
        {
            "resumable/storage/recovery.py": """
-            found |= header["boot"] == boot_id()
+            found = True
""",
        },
    ),
    Mutant(
        "a gap is passed over",
        "after a power cut a run goes on behind checkpoints that are gone",
        [f"{TORN}::test_a_torn_segment_is_no_end"],
        {
            "resumable/storage/accept.py": """
-        elif kind == CHECKPOINT and of == seq + 1 and intact(flags, payload):
+        elif kind == CHECKPOINT and of > seq and intact(flags, payload):
""",
        },
    ),
    Mutant(
        "a journal that is older than the log is taken",
        "a run goes back to an earlier state without a word",
        [f"{DAMAGED}::test_a_journal_older_than_the_log_is_damage"],
        {
            "resumable/storage/recovery.py": """
-    if logged is not None and logged.seq > seq:
+    if False:
""",
        },
    ),
    Mutant(
        "only the newest segment may be without records",
        "a run is damaged when a kill comes while a segment is cleared for its next use",
        ["crash/kill/test_every_instruction.py::test_a_kill_anywhere_loses_nothing[recycled segments]"],
        {
            "resumable/storage/recovery.py": """
-        if live.segment.record_at(HEADER) is not None:
+        if live.segment.record_at(HEADER) is not None or live is not found[-1]:
""",
        },
    ),
    Mutant(
        "segments need not join",
        "a run goes on although one of its segments is gone",
        [f"{DAMAGED}::test_states_between_two_segments_are_missed"],
        {
            "resumable/storage/recovery.py": """
-        if (last[1] if last else live.last_seq) != later.last_seq:
+        if False:
""",
        },
    ),
    Mutant(
        "what was cleared counts",
        "a run that was cleared comes back",
        [f"{CUT}::test_a_cleared_journal_stays_cleared"],
        {
            "resumable/runs/opening.py": """
-        if number <= cleared or (logged is not None and logged.status in ENDED):
+        if (logged is not None and logged.status in ENDED):
""",
        },
    ),
    Mutant(
        "the journal goes before the log has it",
        "a kill at a run's end loses its last checkpoints",
        ["feature/test_killed_at_the_end.py::test_a_finished_job_is_not_run_again[before the flush]"],
        {
            "resumable/runs/live.py": """
+        self._folder.discard(self.number)
         try:
             self._home.writer.flush(self._handoff)
         except StorageError as error:
             self._let_go()
""",
        },
    ),
    Mutant(
        "a journal that is gone is passed over",
        "a run goes back to what the log has without a word",
        ["feature/test_check_repair.py::test_repair_takes_the_logs_state_when_the_journal_is_gone"],
        {
            "resumable/runs/opening.py": """
-    if record.boot == boot_id():
+    if False:
""",
        },
    ),
    Mutant(
        "a log that is gone is begun anew",
        "all runs of the directory are forgotten",
        ["feature/test_check_repair.py::test_a_lost_log"],
        {
            "resumable/storage/home.py": """
-    if found and not (path / "log" / "data.mdb").exists():
+    if False:
""",
        },
    ),
    Mutant(
        "another run's segment is read",
        "a run goes on with the state of another",
        [f"{DAMAGED}::test_a_segment_of_another_run_is_damage"],
        {
            "resumable/storage/recovery.py": """
-    if header["name"] != name or header["number"] != number:
+    if False:
""",
        },
    ),
    Mutant(
        "torn segments are removed",
        "what a power cut tore cannot be looked at by anybody",
        [f"{TORN}::test_a_torn_segment_is_no_end"],
        {
            "resumable/storage/recovery.py": """
-            folder.set_aside(number, slot)
+            pass
""",
        },
    ),
    Mutant(
        "the first description counts",
        "after a power cut a state is migrated twice",
        [f"{LIVES}::test_a_state_is_migrated_once"],
        {
            "resumable/storage/accept.py": """
-            elif life > life_of(record.meta):
+            elif False:
""",
        },
    ),
    Mutant(
        "numbers are used again",
        "what a power cut brings back of a cleared run is taken for a new one",
        ["feature/test_retention.py::test_clear_forgets_everything"],
        {
            "resumable/runs/opening.py": """
-    number = max([cleared, record.number if record else 0, *folder.numbers(), start.number if start else 0]) + 1
+    number = max([record.number if record else 0, *folder.numbers(), start.number if start else 0]) + 1
""",
        },
    ),
]

SIDE_FILES: Final = [
    Mutant(
        "side files are not verified",
        "a flipped bit in a large state is read",
        ["feature/test_large_states.py::test_a_damaged_side_file_is_told"],
        {
            "resumable/storage/side.py": """
-    if crc is not None and found != crc:
+    if False:
""",
        },
    ),
    Mutant(
        "buffers are compared at their ends",
        "a change in the middle of a large state is lost",
        [f"{BUFFERS}::test_a_change_in_the_middle_is_seen"],
        {
            "resumable/storage/side.py": """
-            if os.preadv(fd, [scratch], part.offset + start) != piece.nbytes or scratch != piece:
+            if os.preadv(fd, [scratch], part.offset + start) != piece.nbytes:
""",
        },
    ),
    Mutant(
        "a state that was refused is referred to",
        "parts of the next state stand in a file that is written over",
        [f"{BUFFERS}::test_a_checkpoint_that_failed_is_not_referred_to"],
        {
            "resumable/runs/saving.py": """
         flags, payload = (encoded.tier, encoded.data) if large is None else (encoded.tier | SIDE, large.reference)
+        if large is not None:
+            self._parts = large.parts
""",
        },
    ),
    Mutant(
        "side files of no state stay",
        "what a kill left is in the way for ever",
        [f"{BUFFERS}::test_what_was_not_acknowledged_goes"],
        {
            "resumable/storage/side_window.py": """
-        folder.remove_sides(name for seq, name in found.items() if seq > reached)
""",
        },
    ),
    Mutant(
        "a state without its side file counts",
        "after a power cut the run cannot go on",
        [f"{LIVES}::test_what_lost_its_side_file_does_not_count"],
        {
            "resumable/storage/accept.py": """
-        elif kind == CHECKPOINT and of == seq + 1 and intact(flags, payload):
+        elif kind == CHECKPOINT and of == seq + 1:
""",
        },
    ),
    Mutant(
        "a value without its side file counts",
        "after a power cut a finished run has no value",
        [f"{LIVES}::test_what_lost_its_side_file_does_not_count"],
        {
            "resumable/storage/accept.py": """
-        elif kind == RETURN and of == seq and intact(flags, payload):
+        elif kind == RETURN and of == seq:
""",
        },
    ),
]

SYNCED: Final = [
    Mutant(
        "two openers merge at once",
        "a run begins without what its last life had on disk",
        [f"{SYNC_FILES}::test_the_second_opener_waits"],
        {
            "resumable/storage/disksync.py": """
-            with exclusively(self._folder):
-                self._merge(_listed(self._folder))
+            self._merge(_listed(self._folder))
""",
        },
    ),
    Mutant(
        "sync files of the living are removed",
        "what durability=disk acknowledges goes to a file that is gone",
        [f"{SYNC_FILES}::test_a_living_process_keeps_its_file"],
        {
            "resumable/storage/disksync.py": """
-                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)      # says that its process is alive
""",
        },
    ),
    Mutant(
        "a sync file takes entries to its end",
        "what durability=disk acknowledges goes to a file that is gone",
        ["feature/test_durability_disk.py::test_a_closed_sync_file_takes_nothing"],
        {
            "resumable/storage/disksync.py": """
-        file.group.retire()     # else a thread that found it a moment ago could still put into what is about to be removed
""",
        },
    ),
    Mutant(
        "a new sync file has a gap before it",
        "after a power cut what was acknowledged behind the gap is lost",
        [f"{LIVES}::test_the_disk_has_what_it_acknowledged_after_a_resume"],
        {
            "resumable/runs/live.py": """
-            if start.resumed and "disk" in (settings.durability, start.meta.get("durability")):
+            if False:
""",
        },
    ),
    Mutant(
        "a refused record is left out",
        "after a power cut what was acknowledged behind the gap is lost",
        ["feature/test_durability_disk.py::test_a_refused_record_goes_before_the_next"],
        {
            "resumable/runs/saving.py": """
-                    self._sync.put(self.identity.name16, self.number, *self._unsynced[0])
-                    del self._unsynced[0]
+                    record = self._unsynced.pop(0)
+                    self._sync.put(self.identity.name16, self.number, *record)
""",
        },
    ),
    Mutant(
        "a dead boot's sync files are removed for the moment",
        "a second power cut brings them back beside newer ones",
        ["crash/calls/test_sync_order.py::test_a_dead_boots_sync_files_go_for_good"],
        {
            "resumable/storage/disksync.py": """
-            fsync_directory(self._folder)       # a second power cut must not bring them back beside a later boot's
+            pass
""",
        },
    ),
]

MUTANTS: Final = [*RECOVERY, *SIDE_FILES, *SYNCED]
