"""Mutants of loops."""

from __future__ import annotations

from typing import Final

from mutants import Mutant

MAP: Final = "feature/test_map.py"
ITEMS: Final = "feature/test_items.py"
KEYED: Final = "feature/test_items_keyed.py"
OUTPUTS: Final = "feature/test_output_files.py"
OUTPUT_STOPS: Final = "feature/test_output_stops.py"

MUTANTS: Final = [
    Mutant(
        "a finished loop has no state",
        "a sum is 0 when a kill came behind the loop's end",
        ["feature/test_items_saved.py::test_the_state_behind_a_kill_at_the_end"],
        {
            "resumable/work/loop.py": """
-            self._set_state(_state_of(self._engine.last_state(self.name)))
""",
        },
    ),
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
-        return done, self.values, parts
+        return done - 1, self.values, parts
""",
        },
    ),
    Mutant(
        "a record leaves out what the file does not have",
        "the lines of the last items are lost by a crash",
        [f"{OUTPUTS}::test_each_line_is_there_once", f"{OUTPUT_STOPS}::test_killed_at_each_item"],
        {
            "_fastlog/output.pxi": """
-        return put_block(e, at + 34, TAG_BYTES, self.size, self.held, self.size)
+        return put_block(e, at + 34, TAG_BYTES, 0, self.held, 0)
""",
        },
    ),
    Mutant(
        "a record counts bytes that were not written",
        "the lines are in neither the record nor the file",
        ["feature/test_output_binding.py::test_a_file_that_changed"],
        {
            "_fastlog/loop.pxi": """
-                (<Output>outputs[i]).spill()
+                (<Output>outputs[i]).offset += (<Output>outputs[i]).size
+                (<Output>outputs[i]).size = 0
""",
        },
    ),
    Mutant(
        "a resumed file is not cut",
        "lines of an item that was not done are there twice",
        [f"{OUTPUT_STOPS}::test_killed_between_a_write_and_its_record"],
        {
            "resumable/work/output_records.py": """
-            os.ftruncate(file, offset)
""",
        },
    ),
    Mutant(
        "an output file is not noted as written",
        "after a power cut the log tells of lines that the file does not have",
        ["crash/calls/test_output_order.py::test_a_file_is_synced_before_the_log_tells_of_it"],
        {
            "resumable/values/outputs.py": """
-    return partial(_unsynced.add, path)
+    return lambda: None
""",
            "resumable/work/output_records.py": """
-        self._place(file, os.fstat(file).st_ino)
-        outputs.written(self.path)
+        self._place(file, os.fstat(file).st_ino)
""",
        },
    ),
    Mutant(
        "what a failed write has left stays",
        "a disk that was full for a moment leaves a file that is called somebody else's",
        [f"{OUTPUT_STOPS}::test_a_write_that_fails_in_its_middle"],
        {
            "resumable/work/output_records.py": """
-            os.ftruncate(self.fd, self.offset)
-        self._failed(number)
+            pass
+        self._failed(number)
""",
        },
    ),
    Mutant(
        "another loop's items may write to a file",
        "what an inner loop's item wrote is lost when the outer one is repeated",
        ["feature/test_output_binding.py::test_an_outer_file_in_an_inner_loop"],
        {
            "_fastlog/output.pxi": """
-        own = count > 0 and rs_tuple_items(loops)[count - 1] == <PyObject*>self.loop
+        own = True
""",
        },
    ),
    Mutant(
        "attempts are not saved",
        "an item that fails in each life is tried for ever",
        ["feature/test_failing_items.py::test_attempts_are_counted_over_all_lives"],
        {
            "resumable/work/failing.py": """
-            if answer in ("retry", "fail"):
+            if answer == "fail":
""",
        },
    ),
    Mutant(
        "what a failed attempt did to the state stays",
        "a sum counts an item once for each attempt",
        ["feature/test_attempts.py::test_nothing_stays_of_a_failed_attempt"],
        {
            "resumable/work/failing.py": """
-            marks.values.clear()
-            marks.values.update(values)
""",
        },
    ),
    Mutant(
        "a disk that fails is an item's failure",
        "items are given up one after another, and none of that is saved",
        ["feature/test_attempts.py::test_what_stops_goes_through"],
        {
            "resumable/work/policy.py": """
-_STOPS: Final = (StorageError, DriverClosedError, ForkedError)      # no item is to blame, and none after it can be saved
+_STOPS: Final = (DriverClosedError, ForkedError)
""",
        },
    ),
    Mutant(
        "how many items were done again is not saved",
        "a loop that is killed does them once more",
        ["feature/test_dead_letters.py::test_kill_at_every_step_of_doing_again"],
        {
            "resumable/work/again.py": """
-        return self._request.seen, self._count + self._taken
+        return self._request.seen, self._count
""",
        },
    ),
    Mutant(
        "a finished run's count is taken for the next one's",
        "items of dead letters are left out instead of done again",
        ["feature/test_dead_letters.py::test_letters_of_a_finished_loop"],
        {
            "resumable/work/again.py": """
-            state[2].pop(AGAIN, None)       # of the finished run's own
+            pass
""",
        },
    ),
    Mutant(
        "a map's mark does not say which letters' items are handed out",
        "each call of the map does them once more",
        ["feature/test_map_dead_letters.py::test_as_they_come"],
        {
            "resumable/work/map_loop.py": """
-        self.marks.parts[AGAIN] = self._again.next_place()
""",
        },
    ),
    Mutant(
        "a finished map's results stay behind",
        "a map whose dead letters were done again has no results but theirs",
        ["feature/test_map_dead_letters.py::test_letters_of_a_finished_map"],
        {
            "resumable/work/map_loop.py": """
-        if run.write.results < count:
+        if run.write.results < 0:
""",
        },
    ),
    Mutant(
        "keys that stand behind a request are not looked at",
        "the items of dead letters are done once more in each life",
        ["feature/test_keyed_letters.py::test_letters_of_an_unfinished_keyed_loop"],
        {
            "resumable/work/keyed.py": """
-        keys.take_out(wanted, done, stop)
+        pass
""",
        },
    ),
    Mutant(
        "a run for dead letters alone takes all items for new",
        "every item of a finished loop with keys is done again",
        ["feature/test_keyed_letters.py::test_letters_of_a_finished_keyed_loop"],
        {
            "_fastlog/new_items.pxi": """
-        if self.alone is not None and key not in self.alone:
-            return DONE
""",
        },
    ),
    Mutant(
        "a mark does not say which items are not done",
        "what was in flight when a map stopped is never done, and its results are one short",
        [f"{MAP}::test_others_in_flight_are_saved"],
        {
            "resumable/work/mapping.py": """
-        return {index: self._tries.get(index, 0) for index in self._items if index != but}
+        return {}
""",
        },
    ),
    Mutant(
        "a result that was published before an exception counts as not done",
        "a map that was preempted does an item twice, and has two results of it",
        [f"{MAP}::test_a_map_that_is_preempted"],
        {
            "resumable/work/mapping.py": """
-            if loop.run.seq != before:      # also with an exception: the record is published
+            if loop.run.stop_signal == 0 and loop.run.seq != before:
""",
        },
    ),
    Mutant(
        "results stand where they were saved",
        "the results of a map are those of other items",
        [f"{MAP}::test_results_of_a_map_that_is_not_done"],
        {
            "resumable/runs/mapped.py": """
-        return (found.index, found) if isinstance(found, DeadLetter) else found
+        return number, found[1]
""",
        },
    ),
    Mutant(
        "the item of a worker that died is forgotten",
        "a map waits for it for ever, or ends without it",
        ["feature/test_map_workers.py::test_a_worker_that_dies_is_replaced"],
        {
            "resumable/work/workers.py": """
-            self._started().take(index, encoded)
-            return None
+            return Outcome(index, None, None)
""",
        },
    ),
    Mutant(
        "the log may have results whose items its state does not have",
        "after a power cut between two commits a result stands there twice",
        ["unit/test_result_chunk.py::test_results_are_taken_out_of_the_journal"],
        {
            "_fastlog/segment.pxi": """
-        if last.length and not any([kind == KIND_CHECKPOINT for _, _, kind, _, _ in found]):
-            found.append(state_tuple(self.base, &last))
""",
        },
    ),
    Mutant(
        "the item at hand is done by its key",
        "a crash skips the item at hand of a loop with keys",
        [f"{KEYED}::test_items_may_change"],
        {
            "resumable/work/keyed.py": """
-    keys = keys_of(run, done)
+    keys = keys_of(run, done + (done > 0))
""",
        },
    ),
    Mutant(
        "a key that this life has met is one that is done",
        "the second of two items with one key is skipped without a word",
        [f"{KEYED}::test_two_items_with_one_key"],
        {
            "_fastlog/keys.pxi": """
-        if place >= self.loaded or self.met[place >> 3] & bit:
-            return AGAIN
+        if place >= self.loaded or self.met[place >> 3] & bit:
+            return DONE
""",
        },
    ),
    Mutant(
        "a larger table of keys begins with an empty filter",
        "an item is done again, because its key was met before the table grew",
        ["unit/test_keys.py::test_the_table_is_a_dict"],
        {
            "_fastlog/keys.pxi": """
-                self.filter[self.bucket(tag)] |= filter_bits(tag)
""",
        },
    ),
    Mutant(
        "a key's checksum is not looked at",
        "a flipped bit makes another key pass for one that is done",
        ["unit/test_keys.py::test_every_flipped_bit_is_damage"],
        {
            "_fastlog/key_entries.pxi": """
-    return sealed(seed, place, rs_load(entry), second) == second
+    return second != 0
""",
        },
    ),
    Mutant(
        "the log has a mark before the disk has its keys",
        "after a power cut nobody can tell which items are done",
        [f"{KEYED}::test_keys_are_on_disk_before_the_log"],
        {
            "resumable/runs/saving.py": """
-            self._folder.sync_keys(self.number)
+            pass
""",
        },
    ),
    Mutant(
        "after a power cut marks count without their keys",
        "a loop that lost nothing that was promised cannot go on",
        ["feature/test_items_keyed_damage.py::test_keys_after_a_power_cut"],
        {
            "resumable/storage/recovery.py": """
-        name, number, logged, found, lambda flags, payload: not keyed and _sides_intact(folder, flags, payload)
+        name, number, logged, found, lambda flags, payload: _sides_intact(folder, flags, payload)
""",
        },
    ),
]
