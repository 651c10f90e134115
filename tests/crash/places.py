"""Where the crash tests and what they start find their modules: this folder, and one for each kind of fault."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).parent
RESOURCES = HERE.parent / "resources"    # real servers
SRC = HERE.parents[1] / "src"
FOLDERS = [HERE, *sorted(path for path in HERE.iterdir() if path.is_dir() and path.name[0] not in "._")]
PYTHONPATH = os.pathsep.join(map(str, (SRC, *FOLDERS)))
