"""A wire between two programs on loopback that can be cut and mended: to each the other is gone, and back again."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Wire:
    """Listens, and passes on to `port` what it gets. While it is cut, whoever connects is hung up on at once."""

    def __init__(self, port: int) -> None:
        self._far = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._cut = self._frozen = False

    def cut(self) -> None:
        """All that are connected are torn apart, in the middle of whatever they said."""
        with self._lock:
            self._cut = True
            torn, self._open = self._open, set()
        for end in torn:
            _hang_up(end)

    def freeze(self) -> None:
        """Whoever connects from now on is let in, and hears nothing."""
        self._frozen = True

    def mend(self) -> None:
        with self._lock:
            self._cut = self._frozen = False

    @contextmanager
    def laid(self) -> Iterator[Wire]:
        accepting = threading.Thread(target=self._accept)
        accepting.start()
        try:
            yield self
        finally:
            _hang_up(self._listening)
            accepting.join()
            self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                if self._cut:
                    near.close()
                    continue
                if self._frozen:
                    self._open.add(near)
                    continue
                far = socket.create_connection(("127.0.0.1", self._far))
                self._open |= {near, far}
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while said := one.recv(65536):
                other.sendall(said)
        for end in (one, other):
            with self._lock:
                self._open.discard(end)
            _hang_up(end)


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
