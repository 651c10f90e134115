"""Mutants of the compiled ground: records, headers, bits, forks, the loop, and the shared sync.

Not here: a commit word stored without release order. On x86 every store has it, so the code is the same. What that order
is for, that nothing of a record comes after its commit word, is broken by the mutants that swap the stores.
"""

from __future__ import annotations

from typing import Final

from mutants import Mutant

STEPPED: Final = "crash/kill/test_every_instruction.py::test_a_kill_anywhere_loses_nothing"
DAMAGE: Final = "crash/data/test_damage.py"
FORMAT: Final = "unit/test_journal_format.py"
SYNC: Final = "crash/calls/test_sync_order.py"
GROUP: Final = "crash/calls/test_group_sync.py"

RECORDS: Final = [
    Mutant(
        "records are not verified",
        "a flipped bit is read as a state",
        [f"{DAMAGE}::test_every_bit_in_a_scan"],
        {
            "_fastlog/segment.pxi": """
-    if rs_commit(seed, base + offset, offset, record.length) != word:
-        return False
""",
        },
    ),
    Mutant(
        "the checksum leaves out the place",
        "a block that was written to another place is read as a state",
        [f"{FORMAT}::test_a_record_counts_at_its_place_alone"],
        {
            "_fastlog/native.h": """
-    uint64_t place = (uint64_t)offset | (uint64_t)length << 32;
+    uint64_t place = (uint64_t)length << 32;
@@
-    uint64_t sum = _mm_crc32_u64(seed, (uint64_t)offset | (uint64_t)length << 32);
+    uint64_t sum = _mm_crc32_u64(seed, (uint64_t)length << 32);
""",
        },
    ),
    Mutant(
        "the checksum leaves out the generation",
        "a block of the segment's old life is read as a state",
        [f"{DAMAGE}::test_every_bit_and_block"],
        {
            "_fastlog/segment.pxi": """
-    return rs_crc(0xFFFFFFFFu, <const unsigned char*>&generation, 8)
+    return 0xFFFFFFFFu
""",
        },
    ),
    Mutant(
        "the commit word before the record",
        "a kill leaves a published record that is not whole",
        [f"{STEPPED}[recycled segments]"],
        {
            "_fastlog/journal.pxi": """
         rs_store(record + 8, tag)
-        rs_store_release(record, rs_commit(self.seed, record, self.tail, length))
+        cdef uint64_t word = rs_commit(self.seed, record, self.tail, length)
+        rs_store(record + 8, 0)
+        rs_store_release(record, word)
+        rs_store_release(record + 8, tag)
""",
        },
    ),
    Mutant(
        "the hint before the record",
        "a kill leaves a hint that names nothing, which a start takes for damage",
        [f"{STEPPED}[recycled segments]"],
        {
            "_fastlog/journal.pxi": """
-        rs_store_release(self.base + hint, <uint64_t>self.tail << 32 | (~self.tail & 0xFFFFFFFFu))
@@
+        rs_store_release(self.base + hint, <uint64_t>self.tail << 32 | (~self.tail & 0xFFFFFFFFu))
         rs_store(record + 8, tag)
         rs_store_release(record, rs_commit(self.seed, record, self.tail, length))
""",
        },
    ),
    Mutant(
        "the journal's end behind the commit word",
        "a kill leaves bytes of an old record where the journal ends",
        [f"{STEPPED}[recycled segments]"],
        {
            "_fastlog/journal.pxi": """
-        if size <= self.capacity - self.tail - 8:
-            rs_store(record + size, 0)
@@
         rs_store(record + 8, tag)
         rs_store_release(record, rs_commit(self.seed, record, self.tail, length))
+        if size <= self.capacity - self.tail - 8:
+            rs_store(record + size, 0)
""",
        },
    ),
    Mutant(
        "a segment keeps its first record",
        "a kill leaves a new header over records of the old life",
        [f"{STEPPED}[recycled segments]"],
        {
            "_fastlog/segment.pxi": """
-        rs_store_release(self.base + HEADER_SIZE, 0)
""",
        },
    ),
    Mutant(
        "a segment keeps its hints",
        "a segment that is used again names records that are no more",
        [f"{FORMAT}::test_a_recycled_segment_shows_nothing_of_its_old_life"],
        {
            "_fastlog/segment.pxi": """
-        rs_store_release(self.base + STATE_HINT, 0)
""",
        },
    ),
    Mutant(
        "the second header is not looked at",
        "one flipped bit in a header loses the segment",
        ["feature/test_check_repair.py::test_header_copies"],
        {
            "_fastlog/segment.pxi": """
-    second = read_header_copy(base + SECOND_COPY, &other)
+    second = False
""",
        },
    ),
    Mutant(
        "results are counted wrong",
        "after a kill a result gets the number of another",
        [f"{STEPPED}[fresh segments]"],
        {
            "_fastlog/journal.pxi": """
-                self.count_results(rs_load(payload) + 1)
+                self.count_results(rs_load(payload))
""",
        },
    ),
    Mutant(
        "a refused pwrite counts as written",
        "a checkpoint is acknowledged that the file does not have",
        [f"{FORMAT}::test_a_failed_pwrite_leaves_the_journal_as_it_was"],
        {
            "_fastlog/journal.pxi": """
-                self.tail, self.seq, self.results = start, seq, results
""",
        },
    ),
    Mutant(
        "a torn hint is believed",
        "a flipped bit in a hint hides the last state",
        [f"{DAMAGE}::test_every_bit_and_block"],
        {
            "_fastlog/segment.pxi": """
-    return word >> 32 if (word >> 32 ^ word & 0xFFFFFFFFu) == 0xFFFFFFFFu else 1
+    return word >> 32
""",
        },
    ),
    Mutant(
        "the first record is not verified",
        "a header of the old life stands over records of the new one",
        [f"{DAMAGE}::test_every_bit_and_block"],
        {
            "_fastlog/segment.pxi": """
-            raise ValueError("the first record fails its checksum")
+            pass
""",
        },
    ),
    Mutant(
        "a refused state takes a number",
        "a state that cannot be saved leaves a gap, and the run is damaged",
        [f"{FORMAT}::test_what_is_not_plain_publishes_nothing"],
        {
            "_fastlog/journal.pxi": """
-            self.seq += 1
+        self.seq += 1
         return e.status
""",
        },
    ),
]

BITS: Final = [
    Mutant(
        "one map of bits is read",
        "a flipped bit skips an item",
        [f"{DAMAGE}::test_damage_never_marks_an_item_done"],
        {
            "_fastlog/bitset.pxi": """
-        return rs_load(word) & rs_load(word + PAGE) & <uint64_t>1 << (index & 63) != 0
+        return rs_load(word) & <uint64_t>1 << (index & 63) != 0
""",
        },
    ),
    Mutant(
        "one map of bits is written",
        "an item that was acknowledged is not done",
        [f"{STEPPED}[bitset]"],
        {
            "_fastlog/bitset.pxi": """
-        rs_or_release(word + PAGE, bit)
""",
        },
    ),
]

LOOP: Final = [
    Mutant(
        "forks are not counted",
        "a forked child writes into its parent's journal",
        ["feature/test_fork.py::test_a_run_in_progress_is_the_parents"],
        {
            "_fastlog/native.h": """
-static void rs_in_child(void) { rs_forks++; }
+static void rs_in_child(void) {}
""",
        },
    ),
    Mutant(
        "the loop does not look for forks",
        "a forked child goes on with its parent's run",
        ["feature/test_fork.py::test_a_run_in_progress_is_the_parents"],
        {
            "_fastlog/job.pxi": """
-    if journal.attention or made.has_result or unyielded or rs_forks != journal.forks:
+    if journal.attention or made.has_result or unyielded:
""",
        },
    ),
    Mutant(
        "the loop swallows Ctrl-C",
        "a job that was told to stop while its state was pickled goes on",
        ["feature/test_resume.py::test_an_interrupt_while_a_state_is_pickled_stops_the_job"],
        {
            "_fastlog/job.pxi": """
-    except Exception:
+    except BaseException:
         return False                 # `save` tries the next tier, or says what is wrong
""",
        },
    ),
    Mutant(
        "the same object is not saved again",
        "a state that the job changed in place is lost",
        ["feature/test_resume.py::test_a_state_changed_in_place_is_saved_each_time"],
        {
            "_fastlog/journal.pxi": """
+    cdef object last
     cdef readonly bint due            # whether the checkpoint at hand is one that `save_every` saves
""",
            "_fastlog/job.pxi": """
+    if journal.last is made.state:
+        return TAKEN
+    journal.last = made.state
     cdef int status = journal.save_state(<PyObject*>made.state)
""",
        },
    ),
    Mutant(
        "results wait for save_every",
        "results of checkpoints in between are lost",
        ["feature/test_results.py::test_save_every_saves_each_result_at_once"],
        {
            "_fastlog/job.pxi": """
-    if journal.save_every > 1 and not made.has_result:
+    if journal.save_every > 1:
""",
        },
    ),
]

SHARED_SYNC: Final = [
    Mutant(
        "the sync file is not synced",
        "what durability=disk acknowledged is gone after a power cut",
        [f"{SYNC}::test_a_checkpoint_is_synced_before_it_is_acknowledged"],
        {
            "_fastlog/sync.pxi": """
-        return errno if fdatasync(self.fd) != 0 else 0
+        return 0
""",
        },
    ),
    Mutant(
        "a failed sync is tried again",
        "the second sync succeeds, and the kernel has dropped what the first one could not write",
        [f"{SYNC}::test_a_failed_sync_is_final"],
        {
            "_fastlog/sync.pxi": """
-        return errno if fdatasync(self.fd) != 0 else 0
+        return errno if fdatasync(self.fd) != 0 and fdatasync(self.fd) != 0 else 0
""",
        },
    ),
    Mutant(
        "a failed sync counts as done",
        "a checkpoint is acknowledged that the disk refused",
        [f"{SYNC}::test_a_failed_sync_is_final"],
        {
            "_fastlog/sync.pxi": """
-        error = self.write_and_sync(taken, size, start)
+        error = self.write_and_sync(taken, size, start) and 0
""",
        },
    ),
    Mutant(
        "who came while others synced is told that they did",
        "a checkpoint is acknowledged that the disk does not have",
        [f"{GROUP}::test_who_comes_during_a_sync_waits_for_the_next"],
        {
            "_fastlog/sync.pxi": """
-            wake(heir, error << 1 if error else LEAD)
+            wake(heir, error << 1)
""",
        },
    ),
    Mutant(
        "who waited for a failed sync is not told",
        "a checkpoint is acknowledged that the disk refused",
        [f"{GROUP}::test_a_failed_sync_is_told_to_who_shared_it"],
        {
            "_fastlog/sync.pxi": """
-            wake(followers, error << 1)
+            wake(followers, 0)
""",
        },
    ),
    Mutant(
        "who waits third for a sync is forgotten",
        "a job waits forever for a disk that has its checkpoint",
        [f"{GROUP}::test_who_comes_during_a_sync_waits_for_the_next"],
        {
            "_fastlog/sync.pxi": """
-        self.first = heir.behind if heir != NULL and not error else NULL
+        self.first = NULL
""",
        },
    ),
    Mutant(
        "who was woken does not wake the next",
        "a job waits forever for a disk that has its checkpoint",
        [f"{GROUP}::test_who_comes_during_a_sync_waits_for_the_next"],
        {
            "_fastlog/sync.pxi": """
-        if me.behind != NULL:
+        if False:
""",
        },
    ),
    Mutant(
        "the loop passes over a failed sync",
        "a checkpoint is acknowledged that the disk refused",
        [f"{SYNC}::test_a_failed_sync_is_final"],
        {
            "_fastlog/job.pxi": """
-    if status:
+    if False:
""",
        },
    ),
]

MUTANTS: Final = [*RECORDS, *BITS, *LOOP, *SHARED_SYNC]
