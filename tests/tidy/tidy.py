#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The rules of this tree that a script can check; each line that breaks one is printed with its place.

usage: tidy.py SOURCE BUILD [CC CXX]
"""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile

source, build = map(os.path.abspath, sys.argv[1:3])
cc, cxx = (sys.argv[3:5] + ["cc", "c++"])[:2] if len(sys.argv) < 5 else sys.argv[3:5]

FOLDERS = ("bench", "cmake", "docs", "include", "middleboxes", "orchestrator", "runtime", "scripts", "tests", "tools")
PRODUCT = ("bench/", "include/", "middleboxes/", "orchestrator/", "runtime/")
MAX_FILE, MAX_FUNCTION, MAX_README = 1000, 75, 150

# Functions that may be longer: {"file:function": "reason"}.
LONG_FUNCTIONS = {}

# Which files of the product may include a header of a library; the tests may include all.
LIBRARIES = (
    (r"pcap\b.*|libnet\b.*|xdp/.*|bpf/.*", "runtime/ports/*", "runtime/pcap/*", "bench/wire.c", "bench/bare_xdp.c"),
    (r"msgpack\b.*", "runtime/wire/*", "bench/packing.c"),
    (r"uv\.h", "runtime/wire/*", "runtime/switch/main.*", "runtime/switch/control.*", "runtime/switch/attach_server.*",
     "runtime/switch/checkpoint_server.*",
     "runtime/switch/worker.*", "orchestrator/*"),
    (r"jansson\b.*", "runtime/wire/*", "runtime/switch/*", "runtime/replica/standalone.c", "orchestrator/*", "bench/*"),
    (r"microhttpd\.h", "orchestrator/metrics.c"),
    (r"yaml\.h", "runtime/conf/*"),
    (r"sodium\.h", "middleboxes/ratelimiter/peers/seal.c"),
    (r"xxhash\.h", "runtime/state/*", "runtime/switch/audit.c", "runtime/switch/archive.c", "bench/*"),
)

# Which of our folders a folder includes, beside the public headers and itself.
LAYERS = (
    ("runtime/packet/*", ()),
    ("runtime/state/*", ()),
    ("runtime/ports/*", ()),
    ("runtime/conf/*", ()),
    ("runtime/wire/*", ()),
    ("runtime/daemon/*", ()),
    ("runtime/pcap/*", ("conf", "replica")),
    ("runtime/arena/*", ("state",)),
    ("runtime/replica/standalone.c", ("arena", "packet", "state", "switch")),
    ("runtime/replica/*", ("arena", "packet", "state")),
    ("runtime/testing/*", ("arena", "packet", "ports", "replica", "state", "switch")),
    ("runtime/switch/*", ("arena", "conf", "daemon", "packet", "ports", "replica", "state", "wire")),
    ("orchestrator/*", ("conf", "daemon", "wire")),
    ("middleboxes/ratelimiter/*", ("conf",)),
    ("middleboxes/nat/*", ("conf",)),
    ("middleboxes/program.c", ("conf", "daemon")),
    ("middleboxes/*", ()),
)

failures = 0


def rule(name, found):
    """One rule's result: `found` are texts that begin with their place."""
    global failures
    found = list(found)
    failures += len(found)
    print("%s: %s" % ("FAILED" if found else "ok", name))
    for text in found:
        print("    " + text)


def read(name):
    with open(os.path.join(source, name), encoding="utf-8", errors="replace") as file:
        return file.read()


def all_files():
    for name in sorted(os.listdir(source)):
        if name != ".git" and os.path.isfile(os.path.join(source, name)):
            yield name
    for folder in FOLDERS:
        for at, folders, names in os.walk(os.path.join(source, folder)):
            folders[:] = sorted(set(folders) - {"__pycache__"})
            for name in sorted(names):
                yield os.path.relpath(os.path.join(at, name), source)


def blank(match):
    return re.sub(r"[^\n]", " ", match.group())


def code(text):
    """C without what comments and strings say; lines stay where they are."""
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


def lines(text, pattern):
    """(number, match) of each line that has it."""
    for number, line in enumerate(text.splitlines(), 1):
        match = re.search(pattern, line)
        if match:
            yield number, match


names = [name for name in all_files() if not name.endswith((".pcap", ".pcapng", ".gz", ".png"))]
texts = {name: read(name) for name in names}
c_files = [name for name in names if name.endswith((".c", ".h", ".cc"))]


def spdx():
    for name in names:
        first = texts[name].split("\n", 2)[:2]
        if name.endswith((".c", ".h", ".cc")) and first[0] != "/* SPDX-License-Identifier: BSD-2-Clause */":
            yield name + ":1: does not begin with the SPDX line"
        script = name.endswith((".py", ".sh")) or first[0].startswith("#!")
        if script and "# SPDX-License-Identifier: BSD-2-Clause" not in first:
            yield name + ":1: does not begin with the SPDX line"


def includes(name):
    return lines(re.sub(r"/\*.*?\*/", blank, texts[name], flags=re.S), r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')


def allowed(name, patterns):
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def libraries():
    for name in c_files:
        if not name.startswith(PRODUCT):
            continue
        for number, match in includes(name):
            for header, *patterns in LIBRARIES:
                if re.fullmatch(header, match[1]) and not allowed(name, patterns):
                    yield "%s:%d: includes %s, which only %s may" % (name, number, match[1], ", ".join(patterns))


def layers():
    for name in c_files:
        rest = next((rest for pattern, rest in LAYERS if fnmatch.fnmatch(name, pattern)), None)
        if rest is None:
            continue
        for number, match in includes(name):
            folder = match[1].split("/")[0]
            inside = os.path.isdir(os.path.join(source, "runtime", folder)) and "/" in match[1]
            if inside and folder != name.split("/")[1] and folder not in rest:
                yield "%s:%d: includes %s; it may include of %s" % (name, number, match[1], ", ".join(rest) or "no other")


def long_files():
    for name in names:
        count = texts[name].count("\n")
        if name.endswith((".c", ".h", ".cc", ".py", ".sh")) and count > MAX_FILE:
            yield "%s: %d lines; at most %d" % (name, count, MAX_FILE)
    count = texts["README.md"].count("\n")
    if count >= MAX_README:
        yield "README.md: %d lines; under %d" % (count, MAX_README)


def functions(text):
    """(name, first line, lines) of each: in formatted code its braces stand alone in the first column."""
    body = code(text).split("\n")
    for at, line in enumerate(body):
        if line.rstrip() != "{":
            continue
        end = next(i for i in range(at, len(body)) if body[i].rstrip() == "}")
        start = at
        while start > 0 and body[start - 1].strip() and not body[start - 1].startswith(("}", "#")):
            start -= 1
        head = re.search(r"(\w+)\s*\(", " ".join(body[start:at]))
        yield head[1] if head else "?", start + 1, end - start + 1


def long_functions():
    used = set()
    for name in c_files:
        for function, start, count in functions(texts[name]):
            key = "%s:%s" % (name, function)
            if count > MAX_FUNCTION and key in LONG_FUNCTIONS:
                used.add(key)
            elif count > MAX_FUNCTION:
                yield "%s:%d: %s() has %d lines; at most %d" % (name, start, function, count, MAX_FUNCTION)
    for key in sorted(set(LONG_FUNCTIONS) - used):
        yield "%s: is excepted from the length of functions, and need not be" % key


def words():
    # Put together here, so that they are not found in this file.
    later = r"\b(%s)\b" % "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"))
    place = r"(?<![\w.])/(%s)/[\w.]" % "|".join(("wo" + "rk", "ho" + "me", "ro" + "ot"))
    for name in names:
        for number, match in lines(texts[name], later):
            yield "%s:%d: %s: do it, or say what holds now" % (name, number, match[0])
        for number, match in lines(texts[name], place):
            yield "%s:%d: %s: a place on someone's machine" % (name, number, match[0])


def library_manners():
    """The runtime neither ends the process nor prints; the main file of a program may."""
    for name in c_files:
        if not name.startswith("runtime/") or name.endswith("/main.c"):
            continue
        # Packets may go to stdout.
        for number, match in lines(code(texts[name]), r"\b(_?exit|quick_exit|abort|perror|v?printf|puts|errx?|warnx?)\s*\("
                                   r"|\bstderr\b"):
            yield "%s:%d: %s in the library" % (name, number, match[0])


def prefetches():
    """GCC leaves out what it takes for nothing: see there."""
    for name in c_files:
        if name.startswith("runtime/") and name != "runtime/state/prefetch.h":
            for number, match in lines(code(texts[name]), r"\b__builtin_prefetch\b"):
                yield "%s:%d: %s: state/prefetch.h has what stays" % (name, number, match[0])


def links():
    for name in names:
        if not name.endswith(".md"):
            continue
        text = re.sub(r"```.*?```", blank, texts[name], flags=re.S)
        for number, line in enumerate(text.splitlines(), 1):
            for target in re.findall(r"\]\(([^)\s]+)\)", line):
                if re.match(r"[a-z]+:", target):
                    continue
                path, _, anchor = target.partition("#")
                full = os.path.normpath(os.path.join(source, os.path.dirname(name), path)) if path else os.path.join(source, name)
                if not os.path.exists(full):
                    yield "%s:%d: %s is not there" % (name, number, target)
                elif anchor and full.endswith(".md"):
                    heads = re.findall(r"^#+\s+(.*)", open(full, encoding="utf-8").read(), re.M)
                    if anchor not in [re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads]:
                        yield "%s:%d: %s: no such heading" % (name, number, target)


def headers():
    """Each public header alone, in both languages, by each compiler of C++ that there is."""
    flags = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I" + os.path.join(source, "include"),
             "-I" + os.path.join(build, "include")]
    folders = [os.path.join(source, "include/splitmerge"), os.path.join(build, "include/splitmerge")]
    plus = {os.path.realpath(shutil.which(name)): name for name in ("clang++", "g++", cxx) if shutil.which(name)}
    with tempfile.TemporaryDirectory() as folder:
        def fault(header, compiler, standard, suffix):
            unit = os.path.join(folder, "unit" + suffix)
            with open(unit, "w") as file:
                file.write("#include <splitmerge/%s>\nextern int not_empty;\n" % header)
            result = subprocess.run([compiler, "-std=" + standard, *flags, unit], stderr=subprocess.PIPE, text=True)
            return result.returncode != 0 and "include/splitmerge/%s: alone, as %s by %s: %s" % (
                header, standard, os.path.basename(compiler), result.stderr.strip())
        for header in sorted(name for at in folders for name in os.listdir(at)):
            for ways in [(cc, "c11", ".c")], [(name, of, ".cc") for name in plus.values() for of in ("c++11", "c++20")]:
                yield from [said for said in (fault(header, *way) for way in ways) if said][:1]


def formatting():
    """Files that differ from what clang-format 14 makes of them; other versions differ among themselves."""
    program = shutil.which("clang-format-14") or shutil.which("clang-format")
    version = program and subprocess.run([program, "--version"], stdout=subprocess.PIPE, text=True).stdout
    if not os.path.exists(os.path.join(source, ".clang-format")):
        return []
    if not program or "version 14." not in version:
        print("note: clang-format 14 is not here, only it decides: formatting is not checked")
        return []
    done = subprocess.run([program, "--style=file", "--dry-run", "-Werror", *c_files], cwd=source, stderr=subprocess.PIPE,
                          text=True)
    different = set(re.findall(r"^(\S+?):\d+:\d+: error: ", done.stderr, re.M))
    if done.returncode and not different:
        return ["%s: %s" % (program, done.stderr.strip())]
    return ["%s: clang-format -i changes it" % name for name in sorted(different)]


rule("every source file begins with its license", spdx())
rule("only some folders know a library", libraries())
rule("folders include those below them", layers())
rule("no file is over %d lines, README.md is under %d" % (MAX_FILE, MAX_README), long_files())
rule("no function is over %d lines" % MAX_FUNCTION, long_functions())
rule("nothing is left for later, no path of one machine", words())
rule("the library neither exits nor prints", library_manners())
rule("the runtime prefetches by what the compiler leaves in", prefetches())
rule("links in documents lead somewhere", links())
rule("every public header compiles alone, as C11, C++11 and C++20", headers())
rule("files are formatted by clang-format", formatting())
print("%d failed" % failures)
sys.exit(1 if failures else 0)
