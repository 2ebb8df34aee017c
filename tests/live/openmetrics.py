# SPDX-License-Identifier: BSD-2-Clause
"""The OpenMetrics 1.0 text format, as far as its rules can be broken by whoever writes it; by the standard alone."""

import math
import re

SUFFIXES = {"counter": ("_total", "_created"), "gauge": ("",), "info": ("_info",),
            "histogram": ("_bucket", "_count", "_sum", "_created")}
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{((?:{LABEL})(?:,{LABEL})*)?\}})? (\S+)$")


class Broken(Exception):
    pass


def need(condition, line, rule):
    if not condition:
        raise Broken(f"{rule}: {line!r}")


def _family(families, name, line):
    for family, about in families.items():
        for suffix in SUFFIXES[about["type"]]:
            if name == family + suffix:
                return family, suffix
    raise Broken(f"a sample of no family that was declared: {line!r}")


def _histograms(families, samples):
    for family, about in families.items():
        if about["type"] != "histogram":
            continue
        buckets = [(float(dict(labels)["le"]), value) for (name, labels), value in samples.items() if name == family + "_bucket"]
        need(buckets and buckets[-1][0] == math.inf, family, "a histogram ends with +Inf")
        need(not any(math.isnan(bound) for bound, _ in buckets), family, "a bound is a number")
        need(buckets == sorted(buckets) and [count for _, count in buckets] == sorted(count for _, count in buckets), family, "its buckets ascend, and so do their counts")
        need(samples[family + "_count", ()] == buckets[-1][1], family, "its count is that of +Inf")
        need((family + "_sum", ()) in samples, family, "a sum goes with a count")


def parse(text):
    """{(name, labels): value}, in the order of the text; Broken."""
    need(text.endswith("# EOF\n"), text[-20:], "the text ends with # EOF")
    families, samples, present = {}, {}, None
    for line in text[: -len("# EOF\n")].splitlines():
        about = re.match(rf"# (TYPE|UNIT|HELP) ({NAME}) (.+)$", line)
        if about:
            word, name, what = about.groups()
            if word == "TYPE":
                need(what in SUFFIXES, line, "a type that there is")
                need(name not in families, line, "a family is declared once")
                need(not name.endswith(("_total", "_info", "_bucket", "_count", "_sum")), line, "a family has no suffix")
                families[name] = {"type": what}
                present = name
            need(name == present, line, "what is said of a family stays together")
            need(word != "UNIT" or name.endswith("_" + what), line, "a name ends in its unit")
            need(word != "UNIT" or what in ("seconds", "bytes"), line, "units are base units")
            continue
        match = SAMPLE.match(line)
        need(match, line, "a line is a sample or a description")
        family, suffix = _family(families, match[1], line)
        need(family == present, line, "samples of a family stay together")
        labels = tuple(re.findall(LABEL, match[2] or ""))
        need(len({name for name, _ in labels}) == len(labels), line, "a label stands once")
        need((match[1], labels) not in samples, line, "a sample stands once")
        value = float(match[match.lastindex])
        need(families[family]["type"] == "gauge" or value >= 0, line, "what counts is not negative")
        need(suffix != "_info" or value == 1, line, "an info is 1")
        samples[match[1], labels] = value
    _histograms(families, samples)
    return samples


def parse_older(text):
    """The names of the samples in Prometheus's text format 0.0.4; Broken. What promtool lints, too: each family has a
    help and a type, counters end in _total and nothing else does."""
    families, names = {}, set()
    for line in text.splitlines():
        about = re.match(rf"# (TYPE|HELP) ({NAME}) (.+)$", line)
        if about:
            family = families.setdefault(about[2], {})
            need(about[1] not in family, line, "each is said once")
            family[about[1]] = about[3]
            continue
        match = SAMPLE.match(line)
        need(match, line, "a line is a sample or a description")
        float(match[match.lastindex])
        names.add(match[1])
        base = re.sub("_(bucket|count|sum)$", "", match[1])
        family = families.get(match[1]) or families.get(base) or {}
        need(family.keys() == {"TYPE", "HELP"}, line, "a family has a help and a type")
        need(family["TYPE"] in ("counter", "gauge", "histogram"), line, "a type that there is")
        need((family["TYPE"] == "counter") == match[1].endswith("_total"), line, "counters, and only they, are totals")
    return names


GOOD = """# TYPE a_seconds histogram
# UNIT a_seconds seconds
a_seconds_bucket{le="0.1"} 1
a_seconds_bucket{le="+Inf"} 2
a_seconds_count 2
a_seconds_sum 0.5
# TYPE b counter
b_total{reason="x\\"y"} 3
# EOF
"""


def selftest():
    """Whether it sees what is wrong."""
    parse(GOOD)
    for old, new in (("# EOF\n", ""), ("b_total", "b"), ("counter", "count"), ("0.1", "nan"), ("Inf", "1"), ("_count 2", "_count 1"),
                     ("# TYPE b counter\n", ""), (" 3", ""), (' 3', ' -3'), ('x\\"y', 'x"y'), ("a_seconds_sum 0.5\n", ""),
                     ("UNIT a_seconds seconds", "UNIT a_seconds ms"), ('le="0.1"} 1', 'le="0.1"} 3'),
                     ("# TYPE b counter", "# TYPE b_total counter")):
        try:
            parse(GOOD.replace(old, new))
        except (Broken, ValueError):
            continue
        raise AssertionError(f"{new!r} instead of {old!r} is not seen")
    older = "# TYPE b_total counter\n# HELP b_total B.\nb_total 3\n"
    parse_older(older)
    for old, new in (("# TYPE b_total counter\n", ""), ("# HELP b_total B.\n", ""), ("counter", "info"), ("b_total", "b"), (" 3", "")):
        try:
            parse_older(older.replace(old, new))
        except (Broken, ValueError):
            continue
        raise AssertionError(f"{new!r} instead of {old!r} is not seen")
