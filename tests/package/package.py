#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What is installed, as its users meet it. Each step is a test of its own; all but the first need the first.

  install     into a folder, which is then moved
  layout      every file where it belongs, by component; the commands say their version; each has a man page
  cmake       a project with find_package(splitmerge CONFIG) builds and runs, in C and C++
  template    the template builds where it was installed, and its test passes
  pkgconfig   the same programs by pkg-config
  symbols     the library exports what the headers declare, and nothing else
  man         no page has a warning
  completion  bash completes commands and options
  service     the installed commands find one another, over the installed example
"""

import argparse
import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kit"))

import checks  # noqa: E402
from checks import expect  # noqa: E402

COMMANDS = ["sm-bench", "sm-nat", "sm-orchestrator", "sm-ratelimiter", "sm-switch", "smctl"]
OPTIONAL = {"sm-classifier", "sm-ids", "sm-p0f", "sm-p0f-hosts"}  # where there is what they build on
PACKETS = 2300  # in tests/samples/flows.pcap

parser = argparse.ArgumentParser()
parser.add_argument("step")
for name in ("source", "build", "prefix", "version", "libdir", "cc", "cxx", "cmake", "flags"):
    parser.add_argument("--" + name, required=True)
options = parser.parse_args()
prefix = options.prefix


def run(command, **more):
    """Output and errors of a command that must succeed."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200, **more)
    expect(result.returncode == 0, " ".join(map(str, command)), result.stdout)
    return result.stdout


def path(*parts):
    return os.path.join(prefix, *parts)


def files(folder):
    return sorted(os.path.relpath(os.path.join(at, name), folder)
                  for at, _, names in os.walk(folder) for name in names)


def skip(why):
    print("skipped: " + why)
    sys.exit(77)


def install(folder):
    """What is installed knows nothing of where: it is moved."""
    shutil.rmtree(prefix, ignore_errors=True)
    first = os.path.join(folder, "first")
    run([options.cmake, "--install", options.build, "--prefix", first])
    shutil.move(first, prefix)
    parts = {}
    for component in ("runtime", "development", "testing", "tools", "doc"):
        at = os.path.join(folder, component)
        run([options.cmake, "--install", options.build, "--prefix", at, "--component", component])
        parts[component] = files(at)
    expect(sorted(sum(parts.values(), [])) == files(prefix), "every file is in one component",
          "%s\n%s" % (parts, files(prefix)))
    expect(all("testing" in name for name in parts["testing"]) and len(parts["testing"]) > 5, "component testing is the kit",
          parts["testing"])
    versions = [options.version[: options.version.rindex(".")], options.version]
    expect([os.path.basename(name) for name in parts["runtime"]]
          == ["lib%s.so.%s" % (name, version) for name in ("splitmerge-pcap", "splitmerge") for version in versions]
          + ["LICENSE"],
          "component runtime is the libraries and their license", parts["runtime"])


def layout(folder):
    have = files(prefix)
    headers = sorted(os.listdir(os.path.join(options.source, "include/splitmerge")) + ["version.h"])
    expect(sorted(os.listdir(path("include/splitmerge"))) == headers, "all public headers")
    there = sorted(os.listdir(path("bin")))
    expect([name for name in there if name not in OPTIONAL] == COMMANDS, "the commands and no others", there)
    for name in there:
        said = run([path("bin", name), "--version"])
        expect(said == "%s %s\n" % (name, options.version), name + " says its version", said)
        expect(any(re.search(r"/man[18]/%s\.[18]$" % name, file) for file in have), name + " has a man page")
    for name in ("share/doc/splitmerge/README.md", "share/doc/splitmerge/LICENSE", "share/man/man5/sm-service.5",
                 "share/bash-completion/completions/smctl"):
        expect(name in have, name)
    for name in have:
        with open(path(name), "rb") as file:
            text = file.read()
        # Programs may: their debug information does.
        if not name.startswith(("bin/", "libexec/", options.libdir + "/lib")):
            places = [place for place in (options.source, options.build) if place.encode() in text]
            expect(not places, name + " does not name where it was built", places)


def consume(programs, environment=None):
    for program in programs:
        said = run([program, os.path.join(options.source, "tests/samples/flows.pcap")], env=environment)
        expect(said == "%d packets, splitmerge %s\n" % (PACKETS, options.version), "it counts", said)


def cmake(folder):
    major, minor = options.version.split(".")[:2]
    others = "%s.%d;%d.%s" % (major, int(minor) + 1, int(major) + 1, minor)
    flags = options.flags
    run([options.cmake, "-S", os.path.join(options.source, "tests/package/consumer"), "-B", folder, "-G", "Ninja",
         "-DCMAKE_PREFIX_PATH=" + prefix, "-DVERSION=" + options.version, "-DOTHER_VERSIONS=" + others,
         "-DCMAKE_C_COMPILER=" + options.cc, "-DCMAKE_CXX_COMPILER=" + options.cxx,
         "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror " + flags, "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror " + flags])
    run([options.cmake, "--build", folder])
    with open(os.path.join(folder, "build.ninja")) as file:
        text = file.read()
    expect(prefix in text and options.source + "/include" not in text
          and options.build + "/include" not in text, "it builds with what is installed alone")
    consume([os.path.join(folder, "consumer-c"), os.path.join(folder, "consumer-cxx")])
    run([os.path.join(folder, "tester")])


def template(folder):
    run([options.cmake, "-S", path("share/doc/splitmerge/examples/template"), "-B", folder, "-G", "Ninja",
         "-DCMAKE_PREFIX_PATH=" + prefix, "-DCMAKE_C_COMPILER=" + options.cc,
         "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror " + options.flags])
    run([options.cmake, "--build", folder])
    run([os.path.join(folder, "guard_test")])
    with open(os.path.join(folder, "CTestTestfile.cmake"), encoding="utf-8") as file:
        expect("add_test(" in file.read(), "its test is known to ctest")


def pkgconfig(folder):
    if not shutil.which("pkg-config"):
        skip("there is no pkg-config")
    environment = dict(os.environ, PKG_CONFIG_PATH=path(options.libdir, "pkgconfig"),
                       LD_LIBRARY_PATH=path(options.libdir))
    for name in ("splitmerge", "splitmerge-testing"):
        said = run(["pkg-config", "--modversion", name], env=environment).strip()
        expect(said == options.version, "pkg-config knows the version of " + name, said)
    said = run(["pkg-config", "--variable=prefix", "splitmerge"], env=environment).strip()
    expect(os.path.realpath(said) == os.path.realpath(prefix), "the prefix is where it was moved to", said)
    flags = run(["pkg-config", "--cflags", "--libs", "splitmerge"], env=environment).split() + options.flags.split()
    warnings = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
    source = os.path.join(options.source, "tests/package/consumer/consumer")
    c, cxx = os.path.join(folder, "c"), os.path.join(folder, "cxx")
    run([options.cc, "-std=c11", *warnings, source + ".c", "-o", c, *flags])
    run([options.cxx, "-std=c++14", *warnings, source + ".cc", "-o", cxx, *flags])
    consume([c, cxx], environment)
    flags = run(["pkg-config", "--cflags", "--libs", "splitmerge-testing"], env=environment).split() + options.flags.split()
    tester = os.path.join(folder, "tester")
    run([options.cc, "-std=c11", *warnings, os.path.join(os.path.dirname(source), "tester.c"), "-o", tester, *flags])
    run([tester], env=environment)


def symbols(folder):
    headers = os.listdir(path("include/splitmerge"))
    library_symbols("libsplitmerge", [name for name in headers if name != "testing.h"])
    library_symbols("libsplitmerge-testing", headers)
    drop_in_symbols()


def drop_in_symbols():
    """Whatever takes a handle is ours, or libpcap would take ours for its own; and nothing that is not libpcap's."""
    def exported(library):
        return {line.split()[-1] for line in run(["nm", "-D", "--defined-only", library]).splitlines()}
    real = exported(run([options.cc, "-print-file-name=libpcap.so"]).strip())
    ours = {name for name in exported(path(options.libdir, "libsplitmerge-pcap.so")) if not name.startswith("__")}
    source = run([options.cc, "-E", "-include", "pcap/pcap.h", "-x", "c", "/dev/null"])
    taking = set(re.findall(r"\b(pcap_\w+)\s*\([^;()]*\bpcap_t\s*\*", source)) & real
    expect(len(taking) > 40, "%d calls take a handle" % len(taking))
    expect(taking <= ours, "all of these are the drop-in's", sorted(taking - ours))
    expect(ours - real == {"ioctl"}, "it has libpcap's names, and ioctl() for what is asked of interfaces", sorted(ours - real))


def library_symbols(name, headers):
    declared = set()
    for header in headers:
        with open(path("include/splitmerge", header)) as file:
            text = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)
        declared |= set(re.findall(r"^SM_EXPORT\s[^;(]*?\b(\w+)\(", text, re.M))
    library = path(options.libdir, name + ".so")
    exported = {line.split()[-1] for line in run(["nm", "-D", "--defined-only", library]).splitlines()}
    if options.flags:  # the sanitizers' own
        exported = {name for name in exported if not name.startswith("__")}
    expect(len(declared) > 30, "%d symbols are declared" % len(declared))
    expect(all(name.startswith("sm_") for name in exported), "every symbol begins with sm_", exported)
    expect(exported <= declared, "what is exported is declared", sorted(exported - declared))
    expect(declared <= exported, "what is declared is exported", sorted(declared - exported))
    said = run(["objdump", "-p", library])
    soname = name + ".so." + options.version[: options.version.rindex(".")]
    expect(re.search(r"SONAME\s+%s\n" % re.escape(soname), said), "SONAME is " + soname, said)
    expect("PATH" not in said, "it searches no folder of its own", said)


def man(folder):
    if shutil.which("groff"):
        command = ["groff", "-ww", "-t", "-mandoc", "-Tutf8", "-rLL=80n"]
    elif shutil.which("man"):
        command = ["man", "--warnings", "-l"]
    else:
        skip("there is neither groff nor man")
    pages = [name for name in files(prefix) if name.startswith("share/man/")]
    expect(len(pages) >= len(COMMANDS), "there are pages")
    for page in pages:
        result = subprocess.run([*command, path(page)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="80"), timeout=60)
        expect(result.returncode == 0 and result.stderr == "", page + " has no warnings", result.stderr)
        # Letters come twice, with a backspace or escapes between them, where they are bold.
        plain = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", result.stdout)
        missing = [word for word in ("NAME", "DESCRIPTION") if not re.search("^" + word, plain, re.M)]
        expect(not missing, page + " is formatted", plain[:400])


def complete(words):
    """What bash offers for the last of these words."""
    script = """
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        compopt() { :; }
        registered=($(complete -p "$1"))
        "${registered[-2]}" "$1"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    result = subprocess.run(["bash", "-c", script, "bash", path("share/bash-completion/completions", words[0]), *words],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
                            env=dict(os.environ, PATH=path("bin") + ":" + os.environ["PATH"]))
    return result.stdout.split()


def completion(folder):
    if not shutil.which("bash"):
        skip("there is no bash")
    run(["bash", "-n", path("share/bash-completion/completions/smctl")])
    said = run(["bash", "-c", 'source "$1" && complete -p smctl', "bash",
                path("share/bash-completion/completions/smctl")])
    expect(said.strip() == "complete -F _smctl smctl", "it is registered", said)
    text = run([path("bin/smctl"), "--help"])
    verbs = sorted(set(re.findall(r"^  ([a-z]+)\b", text, re.M)))
    flags = sorted(set(re.findall(r"^  (--[a-z]+)\b", text, re.M)))
    expect(len(verbs) > 8 and len(flags) > 3, "help names commands and options", text)
    offered = complete(["smctl", ""])
    expect(set(verbs) <= set(offered), "every command is offered", (verbs, offered))
    expect(set(flags) <= set(offered), "every option is offered", (flags, offered))
    expect({word for word in offered if not word.startswith("-")} == set(verbs), "nothing is offered that is not there",
          (verbs, offered))
    for words, expected in ((["sc"], ["scale"]), (["run", "--ev"], ["--events"]), (["flow", "sh"], ["show"]),
                            (["status", "--js"], ["--json"]), (["merge", "--in"], ["--into"]),
                            (["move", "--t"], ["--to", "--timeout"])):
        got = complete(["smctl", *words])
        expect(sorted(got) == sorted(expected), "smctl %s" % " ".join(words), got)
    for name in sorted(set(os.listdir(path("bin"))) - {"smctl", "sm-bench", "sm-orchestrator", "sm-switch"}):
        options_of = set(re.findall(r"--[a-z-]+", run([path("bin", name), "--help"])))
        got = complete([name, "--"])
        expect(len(options_of) > 1 and set(got) == options_of, "%s: its options are offered" % name, options_of, got)


def service(folder):
    """With nothing of the tree in PATH, over the example as it is installed."""
    place = os.path.join(folder, "examples")
    shutil.copytree(path("share/doc/splitmerge/examples"), place)
    environment = dict(os.environ, PATH="/usr/bin:/bin", SPLITMERGE_RUN=os.path.join(folder, "run"))
    run([path("bin/smctl"), "run", "edge-limit.yaml", "--events", "events.txt", "--report", "report.json"], cwd=place,
        env=environment)
    run([path("bin/sm-ratelimiter"), "--policy", "policy.yaml", "--in", "flows.pcap", "--out", "alone.pcap"], cwd=place,
        env=environment)
    split, alone = os.path.join(place, "out.pcap"), os.path.join(place, "alone.pcap")
    expect(os.path.exists(split) and filecmp.cmp(split, alone, False), "split it passes what it passes alone")
    for name in sorted(name for name in os.listdir(os.path.join(place, "ratelimiter")) if name.endswith(".yaml")):
        run([path("bin/sm-ratelimiter"), "--check", "--policy", os.path.join(place, "ratelimiter", name)],
            env=environment)


with tempfile.TemporaryDirectory(prefix="splitmerge-package-") as scratch:
    {step.__name__: step for step in (install, layout, cmake, template, pkgconfig, symbols, man, completion, service)}[
        options.step](scratch)
checks.finish()
