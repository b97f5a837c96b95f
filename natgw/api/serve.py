"""One daemon's life: claim the socket, start, serve until told to end, remove everything.

Whatever ends it (SIGTERM, SIGINT, SIGQUIT, SIGHUP, a request, a failure half-way through the start), the same way out is taken,
once, and a second Ctrl-C does not cut it short.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

import uvloop

from natgw.api.backend import Record, Served
from natgw.api.detach import take_over_log
from natgw.api.http import Server
from natgw.api.listen import Claim
from natgw.api.routes import make_app
from natgw.control.daemon import Daemon
from natgw.control.options import DaemonOptions

log = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
GOODBYE_S = 2.0
"""How long answers that are under way may take when the server ends."""

END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


def daemon_for(options: DaemonOptions) -> Daemon:
    """A daemon with the services that were asked for."""
    daemon = Daemon(options)
    if options.docker is not None:
        from natgw.api.docker import DockerService

        daemon.add_service(DockerService(daemon, options.docker))
    return daemon


def serve(options: DaemonOptions, on_ready: Callable[[Record], None], *, log_to_file: bool = False,
          make_daemon: Callable[[DaemonOptions], Served] = daemon_for) -> None:
    """Be the daemon of `options.socket` until told to end; `on_ready` gets its status when the API answers.

    The log goes to standard error, which `log_to_file` turns into natgw.log in the state directory. Raises NatgwError if it
    cannot start; nothing is left behind then.
    """
    with Claim(options.socket) as claim:
        if log_to_file:
            take_over_log(claim.log)
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_life(claim, make_daemon(options), on_ready))


async def _life(claim: Claim, daemon: Served, on_ready: Callable[[Record], None]) -> None:
    end = asyncio.Event()
    for number in END_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, _on_signal, end, number)
    try:
        await daemon.start()
        await _serve_until(end, claim, daemon, on_ready)
    finally:
        await daemon.shutdown()
        # The loop that takes note of signals closes now: one more of them must not cut off what is left to do.
        signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)


async def _serve_until(end: asyncio.Event, claim: Claim, daemon: Served, on_ready: Callable[[Record], None]) -> None:
    server = Server(make_app(daemon, end.set), claim.listen())
    await server.start()
    try:
        status = await daemon.status()
        log.info("natgw %s serves on %s", status["version"], claim.path)
        on_ready(status)
        await end.wait()
        log.info("ending")
    finally:
        await server.stop(GOODBYE_S)


def _on_signal(end: asyncio.Event, number: signal.Signals) -> None:
    log.info("%s%s", number.name, ": already cleaning up" if end.is_set() else "")
    end.set()
