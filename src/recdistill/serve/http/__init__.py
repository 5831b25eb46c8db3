"""The server: HTTP around a `Service`. `running.run` is `recdistill serve`; `app.create_app` makes the ASGI app."""

from __future__ import annotations
