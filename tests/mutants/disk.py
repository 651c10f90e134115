"""Mutants of what is on disk when, of the space that files own, and of who may touch the state directory."""

from __future__ import annotations

from typing import Final

from mutants import Mutant

SYNC: Final = "crash/calls/test_sync_order.py"
PLACE: Final = "unit/test_platform.py"

ON_DISK: Final = [
    Mutant(
        "the log is not synced",
        "a power cut leaves a log that LMDB cannot trust",
        [f"{SYNC}::test_a_commit_is_synced"],
        {
            "resumable/storage/lmdb_log.py": """
-            str(path), map_size=1 << bits, mode=0o600, max_readers=_MAX_READERS, max_spare_txns=0, create=False
+            str(path), map_size=1 << bits, mode=0o600, max_readers=_MAX_READERS, max_spare_txns=0, create=False, sync=False
""",
        },
    ),
    Mutant(
        "the log's entry is not synced",
        "a power cut leaves a state directory without a log",
        [f"{SYNC}::test_new_directories_are_synced"],
        {
            "resumable/storage/lmdb_log.py": """
 FORMAT = 1
+fsync_directory = str
""",
        },
    ),
    Mutant(
        "new directories are not synced",
        "a power cut leaves no state directory",
        [f"{SYNC}::test_new_directories_are_synced"],
        {
            "resumable/storage/platform.py": """
-                fsync_directory(directory.parent)
+                pass
""",
        },
    ),
    Mutant(
        "a sync file is renamed before it is synced",
        "a power cut leaves a sync file without a header",
        [f"{SYNC}::test_a_sync_file_is_on_disk_before_it_is_used"],
        {
            "resumable/storage/disksync.py": """
-            os.fsync(fd)
             os.rename(new, path)
""",
        },
    ),
    Mutant(
        "a sync file's entry is not synced",
        "what durability=disk acknowledged is gone after a power cut",
        [f"{SYNC}::test_a_sync_file_is_on_disk_before_it_is_used"],
        {
            "resumable/storage/disksync.py": """
 CAPACITY = 8 << 20
+fsync_directory = str
""",
        },
    ),
    Mutant(
        "sync files go before the log has them",
        "what durability=disk acknowledged is gone after a power cut",
        ["feature/test_power_cut_sync.py::test_full_files_are_followed_by_others"],
        {
            "resumable/storage/disksync.py": """
-            if value is None or RunRecord.decode(value).seq < seq:
-                return False
+            pass
""",
        },
    ),
    Mutant(
        "side files are not synced",
        "after a power cut the log names a state that the disk does not have",
        ["feature/test_unchanged_buffers.py::test_files_are_on_disk_before_the_log_names_them"],
        {
            "resumable/storage/handoff.py": """
-        self.journal.folder.sync_sides(batch.sides)
""",
        },
    ),
    Mutant(
        "side files are renamed before they are synced",
        "what durability=disk acknowledged is gone after a power cut",
        [f"{SYNC}::test_a_side_file_is_on_disk_before_its_state"],
        {
            "resumable/storage/side.py": """
-            if durable:
-                os.fdatasync(fd)
""",
        },
    ),
    Mutant(
        "side files' entries are not synced",
        "what durability=disk acknowledged is gone after a power cut",
        [f"{SYNC}::test_a_side_file_is_on_disk_before_its_state"],
        {
            "resumable/storage/side.py": """
-        if durable:
-            fsync_directory(path.parent)
""",
        },
    ),
    Mutant(
        "outputs are not synced before the log",
        "after a power cut a file is shorter than its checkpoint says",
        ["feature/test_outputs.py::test_the_log_comes_after_the_file"],
        {
            "resumable/storage/handoff.py": """
-        self._sync_outputs()
""",
        },
    ),
    Mutant(
        "outputs are not synced before the sync file",
        "after a power cut a file is shorter than its checkpoint says",
        ["feature/test_outputs.py::test_each_line_is_on_disk_before_its_checkpoint_is"],
        {
            "resumable/runs/saving.py": """
-                self._sync_outputs()    # what another task adds meanwhile may name files that this did not sync
+                pass    # what another task adds meanwhile may name files that this did not sync
""",
        },
    ),
    Mutant(
        "a dead boot's journal is removed for the moment",
        "a second power cut brings it back beside a newer one",
        [f"{SYNC}::test_a_dead_boots_journal_goes_for_good"],
        {
            "resumable/runs/opening.py": """
-            folder.discard(number, goes_on=True)    # else the next power cut could bring it back, beside a later boot's
+            folder.discard(number)    # else the next power cut could bring it back, beside a later boot's
""",
        },
    ),
    Mutant(
        "more is called durable than is",
        "a report says of a checkpoint that no power cut can take it, and one can",
        ["feature/test_reports.py::test_reports_of_a_run_in_progress"],
        {
            "resumable/runs/reports.py": """
         if tail is None or meta["durability"] != "disk":
-            return logged
+            return self.seq
""",
        },
    ),
    Mutant(
        "files do not own their space",
        "a full disk ends the process by SIGBUS",
        [f"{PLACE}::test_a_created_file_owns_its_space"],
        {
            "resumable/storage/platform.py": """
-        os.posix_fallocate(fd, 0, size)
+        os.ftruncate(fd, size)
""",
        },
    ),
]

PLACES: Final = [
    Mutant(
        "directories are open to all",
        "anybody can put a state there that runs code in us",
        [f"{PLACE}::test_a_state_directory_is_private"],
        {
            "resumable/storage/platform.py": """
-                directory.mkdir(0o700)
+                directory.mkdir(0o777)
""",
        },
    ),
    Mutant(
        "the owner is not looked at",
        "another user's state runs code in us",
        [f"{PLACE}::test_a_foreign_directory_is_refused"],
        {
            "resumable/storage/platform.py": """
-    foreign = target.st_uid != user or link.st_uid not in (user, 0)
+    foreign = False
""",
        },
    ),
    Mutant(
        "who may write is not looked at",
        "anybody can put a state there that runs code in us",
        [f"{PLACE}::test_a_directory_that_others_can_write_is_refused"],
        {
            "resumable/storage/platform.py": """
-    elif mode & (stat.S_IWGRP | stat.S_IWOTH):
+    elif False:
""",
        },
    ),
    Mutant(
        "a side file is written through a link",
        "whoever puts a link there has us empty a file elsewhere",
        ["unit/test_folder.py::test_a_side_file_is_not_written_through_a_link"],
        {
            "resumable/storage/side.py": """
-        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
+        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
""",
        },
    ),
    Mutant(
        "network file systems are taken",
        "two machines hold one run",
        [f"{PLACE}::test_a_network_file_system_is_refused"],
        {
            "resumable/storage/platform.py": """
-    if found.network:
+    if False:
""",
        },
    ),
]

MUTANTS: Final = [*ON_DISK, *PLACES]
