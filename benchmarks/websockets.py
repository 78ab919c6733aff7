"""As little WebSocket as a load generator needs: raw sockets, frames in and out, no library's cost in the figures."""

from __future__ import annotations

import base64
import os
import socket
import struct


def masked_frame(payload: bytes) -> bytes:
    """Return a client's binary frame; the mask is zero, which is allowed and costs nothing."""
    length = len(payload)
    if length < 126:
        head = bytes((0x82, 0x80 | length))
    elif length < 65536:
        head = struct.pack(">BBH", 0x82, 0x80 | 126, length)
    else:
        head = struct.pack(">BBQ", 0x82, 0x80 | 127, length)
    return head + bytes(4) + payload


def connect(host: str, port: int, path: str, hello: list[bytes]) -> tuple[socket.socket, bytes]:
    """Open one WebSocket and send it messages; returns the socket and the bytes that came behind the handshake."""
    connection = socket.create_connection((host, port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(4096)
        if not part:
            raise ConnectionError("the server closed during the handshake")
        received += part
    head, rest = received.split(b"\r\n\r\n", 1)
    if b" 101 " not in head.split(b"\r\n", 1)[0]:
        raise ConnectionError(f"no upgrade: {head[:80]!r}")
    for message in hello:
        connection.sendall(masked_frame(message))
    connection.setblocking(False)
    return connection, rest


def _head_of_whole(data: bytes) -> int:
    """Return the length of the head if the data is one short binary frame, as most are; else 0."""
    size = len(data)
    if size < 4 or data[0] != 0x82:
        return 0
    if data[1] == size - 2:
        return 2
    return 4 if data[1] == 126 and int.from_bytes(data[2:4], "big") == size - 4 else 0


class FrameReader:
    """Cuts a server's byte stream into the payloads of binary frames."""

    def __init__(self, rest: bytes = b"") -> None:
        self._buffer = bytearray(rest)

    def feed(self, data: bytes) -> list[memoryview]:
        """Return the payloads that are complete now."""
        buffer = self._buffer
        if not buffer and (head := _head_of_whole(data)):
            return [memoryview(data)[head:]]
        buffer += data
        payloads = []
        start, end = 0, len(buffer)
        taken = bytes(buffer)
        view = memoryview(taken)
        while end - start >= 2:
            length, head = taken[start + 1], 2
            if length == 126:
                head = 4
            elif length == 127:
                head = 10
            if end - start < head:
                break
            if length >= 126:
                length = int.from_bytes(taken[start + 2 : start + head], "big")
            if end - start < head + length:
                break
            if taken[start] == 0x82:
                payloads.append(view[start + head : start + head + length])
            start += head + length
        del buffer[:start]
        return payloads
