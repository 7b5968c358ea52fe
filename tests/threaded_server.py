"""An ASGI application that listens on this machine, in a thread, so that tests talk to it over the network."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import uvicorn


@contextlib.contextmanager
def served(app, *, access_log=False, root_path=""):
    """Yield the address of *app*."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, ws="none", lifespan="off", log_config=None, access_log=access_log, root_path=root_path, log_level="info"
    )
    server = uvicorn.Server(config)
    ready = threading.Event()

    async def main():
        asyncio.get_running_loop().call_soon(ready.set)
        await server.serve([listener])
        if hasattr(app, "state") and hasattr(app.state, "endpoint"):
            await app.state.endpoint.handler.aclose()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
