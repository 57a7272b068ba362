#!/usr/bin/env python3
"""dns.py up|down: switches the loopback device. dns.py PORT: a name server on 127.0.0.1:53 that answers as badly as scripts/names needs, by the first label of the name.

  ok         A 127.0.0.1, and no AAAA (NOERROR, empty)
  servfail   A 127.0.0.1; AAAA: SERVFAIL
  dropped    A 127.0.0.1; AAAA: no answer at all
  refused    A 127.0.0.1; AAAA: REFUSED
  late       both, the AAAA (::1) after 200 ms
  next       A 127.0.0.9, where PORT is open and nobody answers, and 127.0.0.1
  six        AAAA 2001:db8::1 only
  silent     nothing at all
  anything else: NXDOMAIN
"""
import fcntl
import socket
import struct
import sys
import threading
import time

A, AAAA = 1, 28
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5


def answer(label, kind):
    """Records and code; None is silence."""
    here = [socket.inet_aton("127.0.0.1")]
    if label == "next":
        here = [socket.inet_aton("127.0.0.9"), here[0]]
    if label == "silent":
        return None
    if label == "six":
        return ([socket.inet_pton(socket.AF_INET6, "2001:db8::1")] if kind == AAAA else [], NOERROR)
    if label not in ("ok", "servfail", "dropped", "refused", "late", "next"):
        return ([], NXDOMAIN)
    if kind == A:
        return (here, NOERROR)
    if label == "late":
        time.sleep(0.2)
        return ([socket.inet_pton(socket.AF_INET6, "::1")], NOERROR)
    return {"servfail": ([], SERVFAIL), "refused": ([], REFUSED), "dropped": None}.get(label, ([], NOERROR))


def serve(server, query, client):
    end = query.index(b"\0", 12) + 5
    label = query[13 : 13 + query[12]].decode()
    kind = struct.unpack("!H", query[end - 4 : end - 2])[0]
    said = answer(label, kind)
    if said is None:
        return
    records, code = said
    reply = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0) + query[12:end]
    for data in records:
        reply += b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data
    server.sendto(reply, client)


def set_loopback(up):
    """A network of its own begins with nothing; and without the device, every packet is lost."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
        flags = struct.unpack("16xH", fcntl.ioctl(any_socket, 0x8913, struct.pack("16sH14x", b"lo", 0))[:18])[0]
        flags = flags | 1 if up else flags & ~1
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", flags))


def main():
    if sys.argv[1] in ("up", "down"):
        set_loopback(sys.argv[1] == "up")
        return
    mute = socket.create_server(("127.0.0.9", int(sys.argv[1])))
    mute.listen()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    print("ready", flush=True)
    while True:
        query, client = server.recvfrom(4096)
        threading.Thread(target=serve, args=(server, query, client), daemon=True).start()


main()
