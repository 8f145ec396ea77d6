"""Websocket framing: what RFC 6455 prescribes, in any pieces the kernel may deliver."""

import random
import socket
import threading

import pytest

from cli.failure import CliError, Refused
from cli.websocket import BINARY, CLOSE, PING, TEXT, Decoder, Message, WebSocket, accept_key, encode, masked


def frame(opcode: int, payload: bytes, *, is_final: bool = True) -> bytes:
    """A server's frame: not masked."""
    count = len(payload)
    if count < 126:
        size = bytes([count])
    else:
        size = b"\x7e" + count.to_bytes(2, "big") if count < 1 << 16 else b"\x7f" + count.to_bytes(8, "big")
    return bytes([(0x80 if is_final else 0) | opcode]) + size + payload


def test_the_examples_of_the_rfc():
    """Sections 1.3 and 5.7."""
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert encode(TEXT, b"Hello", b"\x37\xfa\x21\x3d") == bytes.fromhex("818537fa213d7f9f4d5158")
    assert list(Decoder().feed(bytes.fromhex("810548656c6c6f"))) == [Message(TEXT, b"Hello")]


@pytest.mark.parametrize("count", [0, 1, 125, 126, 65535, 65536, 300_001])
def test_any_size_comes_back_from_any_pieces(count: int):
    payload = random.Random(count).randbytes(count)
    data = frame(BINARY, payload) + frame(TEXT, b"")
    decoder, found, step = Decoder(), [], max(1, count // 7)

    for at in range(0, len(data), step):
        found += decoder.feed(data[at : at + step])

    assert found == [Message(BINARY, payload), Message(TEXT, b"")]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 126, 70_000])
def test_a_mask_undoes_itself_and_is_on_every_byte(count: int):
    payload, mask = random.Random(1).randbytes(count), b"\x01\x02\x03\x04"

    assert masked(masked(payload, mask), mask) == payload
    assert masked(payload, mask) == bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def test_fragments_are_joined_around_a_ping():
    data = frame(BINARY, b"ab", is_final=False) + frame(PING, b"x") + frame(0, b"cd")

    assert list(Decoder().feed(data)) == [Message(PING, b"x"), Message(BINARY, b"abcd")]


@pytest.mark.parametrize("data", [b"\xf1\x00", b"\x81\x85abcdhello", b"\x82\x7f" + b"\xff" * 8])
def test_what_is_no_websocket_is_refused(data: bytes):
    """Reserved bits, a masked server, an absurd size."""
    with pytest.raises(CliError):
        list(Decoder().feed(data))


def answering(answer: bytes) -> socket.socket:
    """Return the client's end of a connection whose server says *answer* to the handshake."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        key = theirs.recv(4096).decode().partition("Sec-WebSocket-Key: ")[2].partition("\r\n")[0]
        theirs.sendall(answer.replace(b"KEY", accept_key(key).encode()))
        theirs.close()

    threading.Thread(target=serve, daemon=True).start()
    return ours


def test_messages_that_come_with_the_handshake_are_kept():
    head = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: KEY\r\n\r\n"
    channel = WebSocket(answering(head + frame(BINARY, b"early") + frame(CLOSE, b"\x03\xe8")), "/1.0/events")

    assert list(channel.messages()) == [Message(BINARY, b"early")]


def test_a_refused_handshake_says_the_servers_reason():
    body = b'{"type":"error","error":"Operation not found","error_code":404}'

    with pytest.raises(Refused, match="Operation not found"):
        WebSocket(answering(b"HTTP/1.1 404 Not Found\r\n\r\n" + body), "/x")


def test_a_wrong_key_is_refused():
    """It would be an answer to somebody else's request."""
    with pytest.raises(CliError):
        WebSocket(answering(b"HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: other\r\n\r\n"), "/x")
