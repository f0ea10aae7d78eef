"""A TCP proxy on loopback that breaks connections on command, for tests.

    with ChaosProxy(listen_port, target_port) as proxy:
        proxy.hold()       # a cable pulled: connections stay open and nothing passes either way
        proxy.reset()      # every open connection is reset, new ones work
        proxy.refuse()     # reset, and new ones are closed at once
        proxy.delay(0.3)   # seconds later, each way, in order
        proxy.cut(100)     # 100 more bytes to clients, then that connection is reset: a torn reply
        proxy.heal()       # normal again

It runs on a thread with a loop of its own; the methods may be called from any other thread.
"""
import asyncio
import socket
import struct
import threading
import time

HOST = "127.0.0.1"


def reset_one(writer):
    """RST in place of FIN."""
    raw = writer.get_extra_info("socket")
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    writer.transport.abort()


class ChaosProxy:
    def __init__(self, listen_port, target_port):
        self.listen_port, self.target_port = listen_port, target_port
        self.pairs = set() # of both writers of each open connection
        self.held, self.refusing, self.latency, self.left = False, False, 0.0, None
        self.loop = asyncio.new_event_loop()
        self.ready, self.failure = threading.Event(), None
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        self.ready.wait()
        if self.failure:
            raise self.failure
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def hold(self):
        self.held = True

    def delay(self, seconds):
        self.latency = seconds

    def cut(self, n_bytes):
        self.left = n_bytes

    def reset(self):
        self.loop.call_soon_threadsafe(self.reset_all)

    def refuse(self):
        self.refusing = True
        self.reset()

    def heal(self):
        self.held, self.refusing, self.latency, self.left = False, False, 0.0, None

    # ---- on the thread

    def run(self):
        asyncio.set_event_loop(self.loop)
        try:
            server = self.loop.run_until_complete(
                asyncio.start_server(self.serve, HOST, self.listen_port))
        except OSError as error:
            self.failure = error
            self.ready.set()
            return
        self.ready.set()
        self.loop.run_forever()
        server.close()
        self.reset_all()
        rest = asyncio.all_tasks(self.loop)
        for task in rest:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        self.loop.close()

    def reset_all(self):
        for pair in self.pairs:
            for writer in pair:
                reset_one(writer)

    async def serve(self, reader, writer):
        if self.refusing:
            reset_one(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self.target_port)
        except OSError:
            reset_one(writer)
            return
        pair = (writer, far_writer)
        self.pairs.add(pair)
        up, down = asyncio.Queue(64), asyncio.Queue(64)
        senders = [asyncio.ensure_future(self.send(up, far_writer, None)),
                   asyncio.ensure_future(self.send(down, writer, pair))]
        receivers = [asyncio.ensure_future(self.receive(reader, up)),
                     asyncio.ensure_future(self.receive(far_reader, down))]
        try: # until either way ends
            await asyncio.wait(senders, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in senders + receivers:
                task.cancel()
            await asyncio.gather(*senders, *receivers, return_exceptions=True)
            self.pairs.discard(pair)
            for end in pair:
                end.close()

    async def receive(self, reader, queue):
        data = b"more"
        while data:
            try:
                data = await reader.read(65536)
            except OSError:
                data = b""
            await queue.put((time.monotonic() + self.latency, data))

    async def send(self, queue, writer, pair):
        """pair: given for the way to the client, which can be cut."""
        data = b"more"
        while data:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            while self.held:
                await asyncio.sleep(0.02)
            if pair and self.left is not None:
                data, self.left = data[:self.left], self.left - len(data)
            writer.write(data)
            await writer.drain()
            if pair and self.left is not None and self.left <= 0:
                self.left = None
                for end in pair:
                    reset_one(end)
                return
