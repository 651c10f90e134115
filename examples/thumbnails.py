"""A thumbnail of each picture. Kill it anywhere (kill -9) and start it again: it goes on with the picture it was at.

    python examples/thumbnails.py
"""

from pathlib import Path

import offline
import resumable


def thumbnail(picture):
    """Every fourth point of every fourth row of a binary PPM of 256 by 256 points."""
    points = picture[len(b"P6\n256 256\n255\n") :]
    rows = [points[at : at + 3 * 256] for at in range(0, len(points), 4 * 3 * 256)]
    return b"P6\n64 64\n255\n" + b"".join(row[at : at + 3] for row in rows for at in range(0, 3 * 256, 12))


@resumable.loop(name="thumbnails")
def make_thumbs(image_paths):
    for path in image_paths:
        picture = Path(path).read_bytes()
        Path(path.replace(".ppm", "_thumb.ppm")).write_bytes(thumbnail(picture))


if __name__ == "__main__":
    make_thumbs(offline.pictures("pictures", 100))
