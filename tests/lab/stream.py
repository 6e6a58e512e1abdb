#!/usr/bin/env python3
"""What a link carries: plain TCP streams between hosts of a lab, counted where they arrive."""
import pathlib
import socket
import subprocess
import sys
import time

PORT = 29400
WARM_UP_S = 0.2  # before the count begins: TCP finds its pace
CONNECT_S = 1.0
BLOCK = 1 << 18


def receive(address, port, seconds):
    """Prints Mbit/s of payload; 0 when nobody got through."""
    with socket.create_server((address, port)) as server:
        server.settimeout(CONNECT_S + 0.5)
        try:
            stream, _ = server.accept()
        except TimeoutError:
            print(0)
            return
    block = bytearray(BLOCK)
    stream.settimeout(seconds)
    began = time.monotonic()
    counted, since, now = 0, began, began
    try:
        while now < began + WARM_UP_S + seconds:
            got = stream.recv_into(block)
            now = time.monotonic()
            if now < began + WARM_UP_S:
                since = now
            else:
                counted += got
    except TimeoutError:
        now = time.monotonic()
    print(counted * 8e-6 / (now - since) if now > since else 0)


def send(own_address, address, port):
    """Sends until the receiver has had enough."""
    deadline = time.monotonic() + CONNECT_S
    while True:
        try:
            stream = socket.create_connection((address, port), timeout=0.3,
                                              source_address=(own_address, 0))
            break
        except OSError:
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)
    block = bytes(BLOCK)
    stream.settimeout(5)
    try:
        while True:
            stream.sendall(block)
    except OSError:
        pass


def rates(lab, flows, seconds=0.7):
    """Mbit/s of each of these flows, all at once; a flow is ((host, rail), (host, rail))."""
    program = [sys.executable, str(pathlib.Path(__file__).resolve())]
    receivers, senders = [], []
    for number, (source, target) in enumerate(flows):
        there, port = lab.address(*target), str(PORT + number)
        receivers.append(subprocess.Popen(
            lab.inside(target[0], [*program, "receive", there, port, str(seconds)]),
            stdout=subprocess.PIPE, text=True))
        senders.append(subprocess.Popen(
            lab.inside(source[0], [*program, "send", lab.address(*source), there, port])))
    found = [float(receiver.communicate()[0] or 0) for receiver in receivers]
    for sender in senders:
        sender.wait()
    return found


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    else:
        send(sys.argv[2], sys.argv[3], int(sys.argv[4]))
