"""Ask the daemon of this machine whether it is ready: `python -m headwater_server.health_check`, for images and supervisors.

It reads the settings that the daemon reads, so it finds the port, and speaks TLS where the daemon does. It asks itself over
loopback: what the certificate says is for those outside, and is not looked at. Exit code 0: ready; 1: not; 2: wrong settings.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from headwater_config.load import SettingsError, find_file, load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater_config.settings import Settings

_LIMIT_S = 4.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def main(environ: Mapping[str, str]) -> int:
    """Return the exit code; says on standard error what is wrong."""
    try:
        settings = load({}, environ, find_file(Path.cwd(), environ)).settings
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"headwater: {error}\n")
        return 2
    try:
        status = _status(settings)
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"headwater: {type(error).__name__}: {error}\n")
        return 1
    return 0 if status == 200 else 1


def _status(settings: Settings) -> int:
    host = _EVERYWHERE.get(settings.host, settings.host)
    connection: http.client.HTTPConnection
    if settings.tls_certificate_file is None:
        connection = http.client.HTTPConnection(host, settings.port, timeout=_LIMIT_S)
    else:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, settings.port, timeout=_LIMIT_S, context=context)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(os.environ))
