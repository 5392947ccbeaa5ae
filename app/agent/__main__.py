"""The agent's process: `python -m app.agent`.

Waking a workspace takes as long as it takes until this process listens and the manager knows it, so that is
done first, with nothing but the standard library: the socket, then the call home in a thread. Whoever
connects meanwhile waits in the socket's queue. Flask and the rest are imported after that, the model's client last.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

from app.agent.settings import AgentSettings, BadSetting, own_address, settings_from

BACKLOG = 256
THREADS = 32
BODY_BYTES = 4 * 1024 * 1024


def listen(host: str, port: int) -> socket.socket:
    """The open socket. OSError when somebody else has the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(BACKLOG)
    return listener


def say_hello(settings: AgentSettings, port: int, stopping: threading.Event) -> None:
    """Tell the manager where this process is, and again now and then: it may have lost its memory."""
    from app.agent.gateway import Gateway, call_home

    hello = {
        "address": own_address(settings, os.environ, port),
        "name": settings.name or socket.gethostname(),
        "boot": os.urandom(8).hex(),
    }
    gateway = Gateway(settings.gateway_url, settings.token)
    while not stopping.is_set():
        call_home(gateway, hello, stopping)
        # The manager has closed an idle connection long before the next time.
        gateway.close()
        stopping.wait(settings.checkpoint_interval)


def serve(settings: AgentSettings, listener: socket.socket, stopping: threading.Event) -> None:
    """Serve until SIGTERM or SIGINT, then end in order."""
    import logging
    import signal

    ended, end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(ended, True)
    signal.set_wakeup_fd(end)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # It would tell of each request that has to wait for a thread.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    for chatty in ("httpx2", "httpcore2", "httpx", "openai"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

    import waitress.server

    from app.agent.server import create_app
    from app.agent.service import Agent

    agent = Agent(settings, os.environ)
    agent.start()
    server = waitress.server.create_server(
        create_app(agent),
        sockets=[listener],
        threads=THREADS,
        max_request_body_size=BODY_BYTES,
        asyncore_use_poll=True,
        ident=None,
    )
    threading.Thread(target=server.run, name="http", daemon=True).start()
    os.read(ended, 1)
    stopping.set()
    agent.stop()


def main() -> int:
    """Run the agent; the exit status."""
    try:
        settings = settings_from(os.environ)
        listener = listen(settings.host, settings.port)
    except (BadSetting, OSError) as e:
        print(f"The agent can't start: {e}", file=sys.stderr)
        return 1
    stopping = threading.Event()
    if settings.gateway_url:
        port = listener.getsockname()[1]
        threading.Thread(target=say_hello, args=(settings, port, stopping), name="hello", daemon=True).start()
    serve(settings, listener, stopping)
    sys.stderr.flush()
    # Not by way of the interpreter's end: it would wait for threads that wait for a provider.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
