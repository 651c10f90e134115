"""A large CSV file, cleaned. Kill it anywhere (kill -9) and start it again: each row is in the new file, and once.

    python examples/clean_csv.py
"""

import offline
import resumable


def normalize(row):
    name, amount = row
    return [name.strip().title(), amount.replace(",", ".")]


@resumable.loop(name="clean csv")
def clean_rows(rows):
    with resumable.csv_writer("clean.csv", header=["name", "amount"]) as output:
        for row in rows:
            output.writerow(normalize(row))


if __name__ == "__main__":
    clean_rows(offline.raw_rows("raw.csv", 50_000))
