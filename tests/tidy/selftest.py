#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""tidy.py finds each thing that it is there to find, in a tree that has them all, and nothing in one that is clean."""

import os
import subprocess
import sys
import tempfile

SPDX = "/* SPDX-License-Identifier: BSD-2-Clause */\n"
LATER, PLACE = "TO" + "DO", "/" + "work/tree"

CLEAN = {
    "README.md": "[code](runtime/state) and [itself](#title)\n# Title\n",
    "include/splitmerge/types.h": SPDX + "typedef int sm_good;\n",
    "runtime/ports/port.c": SPDX + "#include <pcap.h>\n",
    "runtime/state/table.c": SPDX + '/* exit(1) in words, "abort()" too */\n#include "state/table.h"\nstatic int f(void)\n{\n'
                                    "    return 0;\n}\n",
    "runtime/switch/main.c": SPDX + "#include <uv.h>\nint main(void)\n{\n    exit(0);\n}\n",
    "scripts/run": "#!/bin/sh\n# SPDX-License-Identifier: BSD-2-Clause\n",
}

# What breaks a rule, and what must be said of it.
BROKEN = {
    "runtime/state/bare.c": ("int x;\n", "runtime/state/bare.c:1: does not begin with the SPDX line"),
    "scripts/bare": ("#!/bin/sh\n", "scripts/bare:1: does not begin with the SPDX line"),
    "runtime/state/pcap.c": (SPDX + "#include <pcap/pcap.h>\n", "runtime/state/pcap.c:2: includes pcap/pcap.h"),
    "runtime/ports/msgpack.c": (SPDX + "\n#include <msgpack.h>\n", "runtime/ports/msgpack.c:3: includes msgpack.h"),
    "runtime/switch/switch.h": (SPDX + "#include <uv.h>\n", "runtime/switch/switch.h:2: includes uv.h"),
    "runtime/arena/report.c": (SPDX + "#  include <jansson.h>\n", "runtime/arena/report.c:2: includes jansson.h"),
    "runtime/state/layer.c": (SPDX + '#include "ports/port.h"\n', "runtime/state/layer.c:2: includes ports/port.h"),
    "bench/long.c": (SPDX + "\n" * 1000, "bench/long.c: 1001 lines"),
    "bench/function.c": (SPDX + "static int big(int a,\n    int b)\n{\n" + "    a++;\n" * 72 + "}\n",
                         "bench/function.c:2: big() has 76 lines"),
    "tests/later.c": (SPDX + "/* %s: more */\n" % LATER, "tests/later.c:2: " + LATER),
    "docs/place.md": ("see %s\n[gone](nowhere.md) [there](../README.md#title) [not](../README.md#untitled)\n" % PLACE,
                      "docs/place.md:1: " + PLACE[:6], "docs/place.md:2: nowhere.md is not there",
                      "docs/place.md:2: ../README.md#untitled: no such heading"),
    "runtime/wire/end.c": (SPDX + "void f(void)\n{\n    abort();\n    fprintf(stderr, 0);\n}\n",
                           "runtime/wire/end.c:4: abort( in the library", "runtime/wire/end.c:5: stderr in the library"),
    "runtime/state/fetch.c": (SPDX + "void f(int *a)\n{\n    __builtin_prefetch(a);\n}\n",
                              "runtime/state/fetch.c:4: __builtin_prefetch"),
    "include/splitmerge/words.h": (SPDX + "static inline int f(int *class) { return *class; }\n",
                                   "include/splitmerge/words.h: alone, as c++11"),
    "include/splitmerge/needy.h": (SPDX + "typedef uint64_t sm_needy;\n", "include/splitmerge/needy.h: alone, as c11",
                                   "include/splitmerge/needy.h: alone, as c++11"),
}


def tidy(files):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(text)
        os.makedirs(os.path.join(folder, "build/include/splitmerge"))
        result = subprocess.run([sys.executable, "-B", os.path.join(os.path.dirname(__file__), "tidy.py"), folder,
                                 os.path.join(folder, "build")], stdout=subprocess.PIPE, text=True)
    return result.returncode, result.stdout


status, said = tidy(CLEAN)
if status != 0:
    sys.exit("a clean tree is refused:\n" + said)
status, said = tidy({**CLEAN, **{name: text for name, (text, *_) in BROKEN.items()}})
expected = [text for _, *texts in BROKEN.values() for text in texts]
missing = [text for text in expected if "    " + text not in said]
if status != 1 or missing or said.splitlines()[-1] != "%d failed" % len(expected):
    sys.exit("%s\nnot said: %s, %d expected" % (said, missing, len(expected)))
print("%d faults of %d found" % (len(expected), len(expected)))
