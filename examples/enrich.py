"""An API asked about each lead. Kill it anywhere (kill -9) and start it again: at most one request is sent twice.

    python examples/enrich.py
"""

import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import offline
import resumable


@dataclass
class Client:
    host: str
    port: int

    def lookup(self, email):
        with urllib.request.urlopen(f"http://{self.host}:{self.port}/leads/{email}", timeout=10) as answer:
            return json.load(answer)


@resumable.loop(name="enrich leads")
def enrich(leads, client):
    for lead in leads:
        data = client.lookup(lead["email"])
        Path("leads", f"{lead['email']}.json").write_text(json.dumps(lead | data))


if __name__ == "__main__":
    Path("leads").mkdir(exist_ok=True)
    with offline.service("web") as address:
        enrich(offline.people(100), Client(*address))
