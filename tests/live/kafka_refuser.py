"""A TCP proxy in front of a Kafka broker that refuses records by an error code of its choice.

    with KafkaRefuser(listen_port, target_port, topic, mark, code) as refuser:
        refuser.refused    # how many batches it has refused so far

A batch for the topic that has the mark in its bytes (so send it unpacked) is not passed on; the
proxy answers for the broker. All else goes through as it is. Produce of version 3 to 10 is known.
"""
import socket
import struct
import threading

HOST = "127.0.0.1"
PRODUCE = 0


class Reader:
    """Fields of the protocol, one after another."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, form):
        value = struct.unpack_from(f">{form}", self.data, self.at)[0]
        self.at += struct.calcsize(form)
        return value

    def text(self):
        n = self.number("h")
        self.at += max(n, 0)
        return self.data[self.at - n:self.at] if n >= 0 else None

    def compact(self):
        """A length or a count as newer versions write it, seven bits a byte; -1 of what is null."""
        value = shift = 0
        while True:
            byte = self.number("B")
            value |= (byte & 0x7f) << shift
            shift += 7
            if byte < 0x80:
                return value - 1

    def bytes(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def no_tags(self):
        assert self.number("B") == 0, "a tagged field that is not known here"


FLEXIBLE = 9 # the first version with compact lengths and tagged fields


def places_of(frame):
    """Correlation id, version, and [(topic, partition, batch)] of a request, if it is Produce."""
    reader = Reader(frame)
    key, version, correlation = reader.number("h"), reader.number("h"), reader.number("i")
    if key != PRODUCE:
        return correlation, version, []
    assert 3 <= version <= 10, f"Produce of version {version} is not known here"
    reader.text() # client id
    if version >= FLEXIBLE:
        return correlation, version, flexible_places(reader)
    reader.text() # transactional id
    reader.number("h"), reader.number("i") # acks, timeout
    places = []
    for _ in range(reader.number("i")):
        topic = reader.text()
        for _ in range(reader.number("i")):
            partition, size = reader.number("i"), reader.number("i")
            places.append((topic, partition, reader.bytes(size)))
    return correlation, version, places


def flexible_places(reader):
    places = []
    reader.no_tags()
    reader.bytes(max(reader.compact(), 0)) # transactional id
    reader.number("h"), reader.number("i") # acks, timeout
    for _ in range(reader.compact()):
        topic = reader.bytes(reader.compact())
        for _ in range(reader.compact()):
            partition = reader.number("i")
            places.append((topic, partition, reader.bytes(reader.compact())))
            reader.no_tags()
        reader.no_tags()
    return places


def compact(n):
    out, n = b"", n + 1
    while n >= 0x80:
        out, n = out + bytes([n & 0x7f | 0x80]), n >> 7
    return out + bytes([n])


def refusal(correlation, version, places, code):
    is_flexible, tags = version >= FLEXIBLE, b"\0"
    out = struct.pack(">i", correlation)
    out += tags + compact(len(places)) if is_flexible else struct.pack(">i", len(places))
    for topic, partition, _ in places:
        if is_flexible:
            out += compact(len(topic)) + topic + compact(1)
        else:
            out += struct.pack(">h", len(topic)) + topic + struct.pack(">i", 1)
        out += struct.pack(">ihqq", partition, code, -1, -1)
        if version >= 5:
            out += struct.pack(">q", -1) # where the log begins
        if is_flexible:
            out += compact(0) + compact(-1) + tags + tags # no records named, no sentence
        elif version >= 8:
            out += struct.pack(">ih", 0, -1)
    out += struct.pack(">i", 0) + (tags if is_flexible else b"") # throttled for so long
    return struct.pack(">i", len(out)) + out


class KafkaRefuser:
    def __init__(self, listen_port, target_port, topic, mark, code):
        self.target_port, self.topic, self.mark, self.code = target_port, topic, mark, code
        self.refused, self.faults, self.sockets = 0, [], []
        self.listener = socket.create_server((HOST, listen_port))

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR) # so that accept() returns and lets go of it
        self.listener.close()
        for each in self.sockets:
            each.close()
        assert not self.faults, self.faults

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection((HOST, self.target_port))
            lock = threading.Lock() # of what is sent to the client
            self.sockets += [near, far]
            for work in (self.requests, self.answers):
                threading.Thread(target=work, args=(near, far, lock), daemon=True).start()

    @staticmethod
    def frames(source):
        file = source.makefile("rb")
        while True:
            head = file.read(4)
            if len(head) < 4:
                return
            frame = file.read(struct.unpack(">i", head)[0])
            yield head, frame

    def requests(self, near, far, lock):
        try:
            for head, frame in self.frames(near):
                correlation, version, places = places_of(frame)
                if any(topic == self.topic and self.mark in batch for topic, _, batch in places):
                    self.refused += 1
                    with lock:
                        near.sendall(refusal(correlation, version, places, self.code))
                else:
                    far.sendall(head + frame)
        except AssertionError as fault:
            self.faults.append(str(fault))
        except (OSError, ValueError):
            pass
        far.close()

    def answers(self, near, far, lock):
        try:
            for head, frame in self.frames(far):
                with lock:
                    near.sendall(head + frame)
        except (OSError, ValueError):
            pass
        near.close()
