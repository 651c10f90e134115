"""A new column for each row of a table. Kill it anywhere (kill -9) and start it again: it goes on with the row it was at.

    python examples/backfill.py
"""

import hashlib

import offline
import resumable


def expensive_computation(user):
    digest = hashlib.pbkdf2_hmac("sha256", str(user).encode(), b"score", 10_000)
    return int.from_bytes(digest[:4], "big")


@resumable.loop(name="backfill")
def backfill(users, connection):
    for user in users:
        score = expensive_computation(user)
        connection.execute("UPDATE users SET score = ? WHERE id = ?", (score, user))
        connection.commit()


if __name__ == "__main__":
    connection = offline.database("users.db", 100)
    backfill(range(100), connection)
    connection.close()
