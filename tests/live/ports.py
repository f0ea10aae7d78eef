"""Ports for services that tests start."""
import random
import socket


def free_ports(n, span=1):
    """The first of n x span ports of 127.0.0.1 of which none is in use, away from those the system
    hands out: one of these could be a client's by the time the service takes it."""
    choose = random.SystemRandom()
    while True:
        first = choose.randrange(12000, 30000)
        sockets = []
        try:
            for port in range(first, first + n * span):
                sockets.append(socket.create_server(("127.0.0.1", port)))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()


def free_port():
    return free_ports(1)
