# Asked by tests/it/libpq.rs: reads connection strings, one JSON string a line, and tells what libpq makes of each, one
# JSON object a line: its parameters without those left to their defaults, or null where it refuses the string.
import json
import sys

from psycopg import pq

print(json.dumps({"version": str(pq.version() // 10000)}))
for line in sys.stdin:
    try:
        options = pq.Conninfo.parse(json.loads(line).encode())
    except Exception:
        print("null")
        continue
    print(json.dumps({o.keyword.decode(): o.val.decode(errors="replace") for o in options if o.val is not None}))
