# SPDX-License-Identifier: BSD-2-Clause
"""Captures, as tests compare them."""


def records(path):
    """The head of a classic capture, and its records, byte for byte; one that is cut off, too."""
    with open(path, "rb") as file:
        data = file.read()
    order = "little" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else "big"
    found, at = [], 24
    while at < len(data):
        end = at + 16 + int.from_bytes(data[at + 8:at + 12], order)
        found.append(data[at:end])
        at = end
    return data[:24], found
