# SPDX-License-Identifier: BSD-2-Clause
"""Checkpoints read by docs/checkpoint-format.md, with nothing of the project's own code."""

import ipaddress
import struct
from collections import namedtuple

import msgpack
import xxhash

MAGIC = b"\xb6splitmerge checkpoint\n"
HEADER, CLASSES, FLOWS, SHARED, END = range(5)
Checkpoint = namedtuple("Checkpoint", "header classes flows shared sections")
Flow = namedtuple("Flow", "shard cls key deadlines fields bound")


class Damaged(Exception):
    """Not a checkpoint, or not as it was written."""


def sections(data):
    if not data.startswith(MAGIC):
        raise Damaged("not a checkpoint")
    sums, at, kind, count = xxhash.xxh3_64(), len(MAGIC), None, 0
    while at < len(data):
        if kind == END or data[at : at + 1] != b"\x94":
            raise Damaged("no section at byte %d" % at)
        length = struct.unpack(">I", data[at + 8 : at + 12])[0]
        end = at + 12 + length + 9
        kind, number, body, checksum = msgpack.unpackb(data[at:end], raw=False)
        if checksum != xxhash.xxh3_64_intdigest(data[at : end - 9]):
            raise Damaged("the section at byte %d has another checksum" % at)
        if kind == END:
            if number != count or body != sums.digest():
                raise Damaged("sections are missing")
        else:
            sums.update(data[end - 8 : end])
            yield kind, number, body
        count += 1
        at = end
    if kind != END:
        raise Damaged("it ends early")


def key_of(data):
    a, b, a_port, b_port, family, protocol, tag = struct.unpack("<16s16sHHBBH", data)
    address = (lambda raw: ipaddress.ip_address(raw[:4] if family == 4 else raw)) if family else (lambda raw: None)
    return address(a), a_port, address(b), b_port, protocol, tag


def field_of(record, field):
    raw = record[field["offset"] : field["offset"] + field["size"]]
    kind = field["type"]
    if kind in (0, 1, 3):  # UINT, INT, TIME
        return int.from_bytes(raw, "little", signed=kind == 1) / field["scale"]
    if kind == 4:  # BOOL
        return raw != b"\0"
    if kind == 5:  # FLOAT
        return struct.unpack("<f" if len(raw) == 4 else "<d", raw)[0] / field["scale"]
    if kind == 6:  # ADDRESS
        return str(ipaddress.ip_address(raw))
    if kind == 8:  # TEXT
        return raw.split(b"\0")[0].decode()
    return raw.hex()


def flows_of(body, count, classes):
    unpacker = msgpack.Unpacker(raw=False, max_buffer_size=0)
    unpacker.feed(body)
    while count > 0:
        shard, many = unpacker.unpack(), unpacker.unpack()
        for _ in range(many):
            flow = unpacker.unpack()
            cls = classes[flow[0]]
            fields = flow[3] if cls["by"] == "callbacks" else {f["name"]: field_of(flow[3], f) for f in cls["fields"]}
            yield Flow(shard, cls["name"], key_of(flow[1]), flow[2], fields, [key_of(key) for key in flow[4:5] or []])
        count -= many
    if unpacker.tell() != len(body):
        raise Damaged("a section goes on behind its flows")


def read(path):
    with open(path, "rb") as file:
        data = file.read()
    header, classes, shared, flows, many = None, [], [], [], 0
    for kind, count, body in sections(data):
        many += 1
        if kind == HEADER:
            header = msgpack.unpackb(body, raw=False)
        elif kind == CLASSES:
            classes = msgpack.unpackb(body, raw=False)["classes"]
        elif kind == FLOWS:
            flows.extend(flows_of(body, count, classes))
        elif kind == SHARED:
            shared = msgpack.unpackb(body, raw=False)["objects"]
    return Checkpoint(header, classes, flows, shared, many)
