"""Run ganzoo commands one after the other in this process, which imports torch once.

python one_process.py JSON      a list of commands' arguments; prints for each its exit code, output and errors
"""

from __future__ import annotations

import contextlib
import io
import json
import sys

from ganzoo.cli.start import main

results = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["ganzoo", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    results.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(results))
