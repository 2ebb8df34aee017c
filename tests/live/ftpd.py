# SPDX-License-Identifier: BSD-2-Clause
"""A small FTP server over one folder: ftpd.py FOLDER. Active data connections come from port 20 (RFC 959)."""

import os
import socket
import sys
import threading


def data_connection(control, active, listener):
    if listener:
        with listener:
            return listener.accept()[0]
    data = socket.socket()
    data.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    data.bind((control.getsockname()[0], 20))
    data.connect(active)
    return data


def transfer(data, verb, path):
    with data:
        if verb == "RETR":
            with open(path, "rb") as file:
                data.sendfile(file)
            return
        with open(path, "wb") as file:
            while block := data.recv(65536):
                file.write(block)


def serve(control):
    answers = {"USER": "331 password?", "PASS": "230 welcome", "TYPE": "200 as you like", "QUIT": "221 bye"}
    lines = control.makefile("rw", encoding="ascii", newline="\r\n")
    active = listener = None

    def say(text):
        lines.write(text + "\n")
        lines.flush()

    say("220 ready")
    for line in lines:
        verb, _, argument = line.strip().partition(" ")
        if verb == "PORT":
            part = argument.split(",")
            active, listener = (".".join(part[:4]), int(part[4]) << 8 | int(part[5])), None
            say("200 there")
        elif verb == "PASV":
            listener = socket.create_server((control.getsockname()[0], 0))
            host, port = listener.getsockname()
            say(f"227 here ({host.replace('.', ',')},{port >> 8},{port & 255})")
        elif verb in ("RETR", "STOR"):
            say("150 coming")
            transfer(data_connection(control, active, listener), verb, os.path.join(sys.argv[1], argument))
            say("226 done")
        else:
            say(answers.get(verb, "502 no"))


server = socket.create_server(("", 21))
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
