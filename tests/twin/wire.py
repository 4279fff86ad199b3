"""One connection in the wire protocol, without a driver: what a client sends byte by byte, and all that it is told.

Answers are compared between two servers, so they are normalised: object ids of tables, source lines of errors, names of
temporary schemas and of prepared statements in texts. ParameterStatus and notifications are kept aside: when they come
within an answer is not promised, what they add up to is.
"""

import re
import select
import socket
import struct
import time

PROTOCOL = 196608
CANCEL = 80877102
# How long an answer may take before it counts as none.
PATIENCE = 30
VOLATILE = re.compile(rb'(pg_(?:toast_)?temp)_\d+|prepared statement "[^"]*"')
# In the names of prepared transactions, which the two databases share: it stands for a letter of the side's, of as many bytes.
SIDE = "§"
SIDED = re.compile(rb"(twin \d+ )_[ab]")
# PL/pgSQL says a function's name as the search path was when the server met it first.
QUALIFIED = re.compile(rb"(PL/pgSQL function )public\.")


def frame(tag, payload=b""):
    return tag + struct.pack("!I", len(payload) + 4) + payload


def text(value):
    return value.encode() + b"\0"


def counted(values):
    parts = [struct.pack("!H", len(values))]
    for value in values:
        parts.append(struct.pack("!i", -1) if value is None else struct.pack("!I", len(value.encode())) + value.encode())
    return b"".join(parts)


def query(sql):
    return frame(b"Q", text(sql))


def message(op):
    """The bytes of one message of the extended protocol, which a step lists as `[letter, …]`."""
    letter, *rest = op
    if letter == "P":
        return frame(b"P", text(rest[0]) + text(rest[1]) + b"\0\0")
    if letter == "B":
        return frame(b"B", text(rest[0]) + text(rest[1]) + b"\0\0" + counted(rest[2]) + b"\0\0")
    if letter in "DC":
        return frame(letter.encode(), rest[0].encode() + text(rest[1]))
    if letter == "E":
        return frame(b"E", text(rest[0]) + struct.pack("!I", rest[1]))
    if letter == "d":
        return frame(b"d", rest[0].encode())
    if letter == "f":
        return frame(b"f", text(rest[0]))
    if letter == "F":
        return frame(b"F", struct.pack("!I", rest[0]) + b"\0\0" + counted(rest[1]) + b"\0\0")
    return frame(letter.encode())


class Silence(Exception):
    """No answer came in time."""


class Link:
    """One connection, and what it was told."""

    def __init__(self, address, user, database, options=None, letter=b"_a"):
        self.address, self.letter = address, letter
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = bytearray()
        self.parameters = {}
        self.heard = []
        self.status = "?"
        self.key = b""
        self.pid = 0
        self.alive = True
        pairs = {"user": user, "database": database, **(options or {})}
        payload = struct.pack("!I", PROTOCOL) + b"".join(text(k) + text(v) for k, v in pairs.items()) + b"\0"
        self.send(struct.pack("!I", len(payload) + 4) + payload)
        self.greeting = [m for m in self.answers(1) if m[0] not in "RK"]

    def send(self, data):
        try:
            self.socket.sendall(data.replace(SIDE.encode(), self.letter))
        except OSError:
            pass  # What the server said before it closed is read all the same.

    def answers(self, ready, copy=(), extended=False):
        """All messages up to the `ready`th ReadyForQuery; `copy` is sent when the server asks for data.

        Without it the server is told that there is none. It has taken the Sync of an extended step for a part of the data
        then (a COPY that the step before has prepared), and is sent another.
        """
        out = []
        deadline = time.monotonic() + PATIENCE
        while ready and self.alive:
            got = self.take()
            if got is None:
                self.fill(deadline, out)
                continue
            tag, payload = got
            if tag == "Z":
                ready -= 1
                self.status = payload.decode()
            elif tag == "G":
                self.send(b"".join(message(op) for op in copy or [["f", "no data"]]))
            elif tag == "E" and extended and b"COPY from stdin failed: no data" in payload:
                self.send(message(["S"]))
            said = self.normal(tag, payload)
            if said and said[0] == "E" and out and out[-1][0] == "t":
                # A server that knew a statement under another search path describes its parameters before it fails; one
                # that must parse it first does not.
                out.pop()
            if said:
                out.append(said)
        return out

    def fill(self, deadline, out):
        self.socket.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            raise Silence(out) from None
        except ConnectionError:
            data = b""
        if not data:
            self.alive = False
            self.status = "closed"
            out.append(("closed",))
        self.input += data

    def take(self):
        if len(self.input) < 5:
            return None
        length = int.from_bytes(self.input[1:5]) + 1
        if len(self.input) < length:
            return None
        got = chr(self.input[0]), bytes(self.input[5:length])
        del self.input[:length]
        return got

    def normal(self, tag, payload):
        if tag == "S":
            name, value = payload.split(b"\0")[:2]
            self.parameters[name.decode()] = value
            return None
        if tag == "A":
            pid, channel = struct.unpack("!I", payload[:4])[0], payload[4:]
            self.heard.append(("own" if pid == self.pid else "other", channel.decode(errors="replace"), pid))
            return None
        if tag == "K":
            self.pid, self.key = struct.unpack("!I", payload[:4])[0], payload
        if tag == "N" and b"catalog cache" in payload:
            return None  # A process tells of its own memory.
        if tag in "EN":
            fields = [plain(f) for f in payload.split(b"\0") if f and f[:1] not in b"FLR"]
            said = b"; ".join(fields)
            if self.status == "E" and b"Mbind message supplies" in said:
                # In a failed transaction a server counts the parameters before it says that the transaction has failed; the
                # gateway, which may hold none then, does not.
                said = b"SERROR; VERROR; C25P02; Mcurrent transaction is aborted, commands ignored until end of transaction block"
            if b"does not exist, skipping" in said:
                said = b"skipping"
            if b"pg_temp" in said and b"does not exist" in said:
                # Whether a server has ever had a temporary schema: the schema is missing, or what would be in it.
                said = b"nothing temporary"
            return tag, said.decode(errors="replace")
        if tag == "T":
            names, at = [], 2
            for _ in range(struct.unpack("!H", payload[:2])[0]):
                end = payload.index(0, at)
                # Not the table's object id.
                names.append((payload[at:end].decode(errors="replace"), payload[end + 5:end + 19].hex()))
                at = end + 19
            return tag, tuple(names)
        return tag, payload

    def quiet(self):
        """What came without being asked for, notifications and parameters aside."""
        out = []
        while self.alive and select.select([self.socket], [], [], 0)[0]:
            self.fill(time.monotonic() + 1, out)
        while got := self.take():
            said = self.normal(*got)
            if said:
                out.append(said)
        return out

    def cancel(self):
        """Sends a cancel request; the server has acted on it when this returns."""
        with socket.create_connection(self.address, timeout=PATIENCE) as link:
            link.sendall(struct.pack("!II", 16, CANCEL) + self.key)
            link.recv(1)

    def vanish(self, how):
        if how == "reset":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how == "terminate":
            self.send(frame(b"X"))
        self.socket.close()
        self.alive = False


def plain(field):
    """A field of an error or a notice, without what two servers may call differently."""
    return QUALIFIED.sub(rb"\1", SIDED.sub(rb"\1", VOLATILE.sub(rb"\1 prepared statement", field)))


def same_but_for_order_of_errors(ours, theirs):
    """Whether all that differs is which of two errors a Bind is told: the gateway asks for the result before a server reads the values.

    Or a server that lacks the statement under another search path prepares it before it counts them.
    """
    def first(one, other):
        if not one[0] == other[0] == "E":
            return False
        values = re.search(r"Wportal .* parameter \$\d+|Wunnamed portal parameter \$\d+", other[1])
        counted = "C08P01; Mbind message supplies" in other[1]
        return "C0A000; Mcached plan must not change result type" in one[1] and values or "C42P01;" in one[1] and counted
    return len(ours) == len(theirs) and all(one == other or first(one, other) for one, other in zip(ours, theirs))


def rows(answers):
    """The rows of an answer, as tuples of texts."""
    out = []
    for tag, payload in (m for m in answers if m[0] == "D"):
        at, row = 2, []
        for _ in range(struct.unpack("!H", payload[:2])[0]):
            length = struct.unpack("!i", payload[at:at + 4])[0]
            at += 4
            row.append(None if length < 0 else payload[at:at + length].decode(errors="replace"))
            at += max(0, length)
        out.append(tuple(row))
    return out


def show(answers):
    """Answers, short enough to read."""
    return [(m[0], rows([m])[0]) if m[0] == "D" else m for m in answers][:12]
