"""TLS on all ports of a real daemon: clients, certificates that change while it runs, pairs that cannot be served, and strangers."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import headwater
import pytest
from headwater_protocol.errors import HeadwaterError
from support.certificates import Authority
from support.daemon import RunningDaemon, free_port, run_server, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IDLE_S = 2.0


@dataclass
class SecureDaemon(RunningDaemon):
    """Speaks TLS on loopback.

    Attributes:
        authority: Whose certificates it has.
    """

    authority: Any = None

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def key_file(self) -> Path:
        return self.folder / "key.pem"

    def is_ready(self) -> bool:
        try:
            return self.https("GET", "/health")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def https(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=30, context=self.authority.trusting
        )
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def served(self, *, port: int = 0) -> dict[str, Any]:
        """Return the certificate that a new connection is served."""
        context = self.authority.trusting
        with (
            socket.create_connection(("127.0.0.1", port or self.port), 30) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            found = secure.getpeercert()
            assert found is not None
            return found


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


@contextlib.contextmanager
def secured(folder: Path, authority: Authority, *options: str) -> Iterator[SecureDaemon]:
    daemon = SecureDaemon(folder, authority=authority)
    folder.mkdir(exist_ok=True)
    authority.issue(daemon.certificate, daemon.key_file, "127.0.0.1")
    daemon.options = (
        *("--tls-certificate-file", str(daemon.certificate), "--tls-key-file", str(daemon.key_file)),
        *("--tls-reload-interval-s", "0.2", "--http-idle-limit-s", str(IDLE_S), *options),
    )
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.end()


def deploy(daemon: SecureDaemon, bundle: str) -> None:
    from headwater.packing import pack
    from support.daemon import BUNDLES

    content = pack(BUNDLES / bundle / "functions")
    status, text = daemon.https("POST", "/api/admin/deploy", content, Authorization=f"Headwater {daemon.key}")
    assert status == 200, text


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[SecureDaemon]:
    routes_port = free_port()
    with secured(tmp_path_factory.mktemp("tls"), authority, "--routes-port", str(routes_port)) as found:
        found.environment = {"ROUTES_PORT": str(routes_port)}
        deploy(found, "routes")
        yield found


async def test_clients_speak_tls_over_both_transports(daemon: SecureDaemon, authority: Authority) -> None:
    for url in (
        f"wss://127.0.0.1:{daemon.port}",
        f"https://127.0.0.1:{daemon.port}",
        f"tcp+tls://127.0.0.1:{daemon.tcp_port}",
    ):
        async with headwater.connect(url, tls=authority.trusting) as client:
            await client.mutation("store:put", box="tls", text="x" * 300_000)
            found = await client.query("store:texts", box="tls")
            assert found[-1] == "x" * 300_000
    with headwater.connect_blocking(f"wss://127.0.0.1:{daemon.port}", tls=authority.trusting) as blocking:
        assert len(blocking.query("store:texts", box="tls")) == 3


def test_routes_speak_tls_on_both_ports(daemon: SecureDaemon) -> None:
    assert daemon.https("GET", "/http/pour/3000000")[1] == b"x" * 3_000_000
    assert daemon.https("POST", "/http/echo", b"y" * 2_000_000)[1] == b"y" * 2_000_000
    own = SecureDaemon(daemon.folder, port=int(daemon.environment["ROUTES_PORT"]), authority=daemon.authority)
    assert own.https("GET", "/kinds/text")[1] == "grün".encode()


@pytest.mark.parametrize(
    ("url", "trusts", "told"),
    [
        ("wss://127.0.0.1:{port}", False, "its certificate is not accepted: "),
        ("tcp+tls://127.0.0.1:{tcp_port}", False, "its certificate is not accepted: "),
        ("wss://localhost:{port}", True, "not valid for 'localhost'"),
        ("tcp+tls://localhost:{tcp_port}", True, "not valid for 'localhost'"),
    ],
)
async def test_clients_tell_what_is_wrong_with_a_certificate(
    daemon: SecureDaemon, authority: Authority, url: str, trusts: bool, told: str
) -> None:
    address = url.format(port=daemon.port, tcp_port=daemon.tcp_port)
    client = headwater.connect(address, tls=authority.trusting if trusts else None, connect_timeout_s=4)
    with pytest.raises(HeadwaterError) as refused:
        async with client:
            pass
    assert told in refused.value.message


async def test_a_client_with_tls_at_a_port_without_is_told(tmp_path: Path, authority: Authority) -> None:
    plain = RunningDaemon(tmp_path)
    try:
        plain.start()
        for url in (f"wss://127.0.0.1:{plain.port}", f"tcp+tls://127.0.0.1:{plain.tcp_port}"):
            with pytest.raises(HeadwaterError) as refused:
                async with headwater.connect(url, tls=authority.trusting, connect_timeout_s=4):
                    pass
            assert "TLS" in refused.value.message, refused.value.message
    finally:
        plain.end()


def test_what_is_no_tls_is_ended(daemon: SecureDaemon) -> None:
    for port in (daemon.port, daemon.tcp_port):
        with socket.create_connection(("127.0.0.1", port), 30) as plain:
            plain.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while plain.recv(4096):
                    pass
    assert daemon.is_ready()


def test_old_tls_is_refused(daemon: SecureDaemon) -> None:
    context = daemon.authority.trusting
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", daemon.port), 30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        assert secure.version() == "TLSv1.2"
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", daemon.port), 30) as plain,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_a_handshake_that_does_not_end_is_cut(daemon: SecureDaemon) -> None:
    with contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            for port in (daemon.port, daemon.tcp_port) * 50
        ]
        assert daemon.is_ready(), "others get in meanwhile"
        for one in slow:
            with contextlib.suppress(ConnectionError):
                assert one.recv(4096) == b""


# --------------------------------------------------------------------------------- certificates change


def renew(daemon: SecureDaemon, kind: str) -> None:
    """Write another certificate, and return once both ports serve it."""
    before = daemon.served()["serialNumber"]
    daemon.authority.issue(daemon.certificate, daemon.key_file, "127.0.0.1", kind=kind)
    wait_until(lambda: daemon.served()["serialNumber"] != before)
    assert daemon.served(port=daemon.tcp_port)["serialNumber"] == daemon.served()["serialNumber"]


async def test_a_renewed_certificate_is_served_without_a_restart(
    tmp_path: Path, authority: Authority
) -> None:
    with secured(tmp_path, authority) as daemon:
        async with headwater.connect(f"wss://127.0.0.1:{daemon.port}", tls=authority.trusting) as client:
            for kind in ("ec", "rsa", "ec"):
                await asyncio.to_thread(renew, daemon, kind)
            assert client.state.connected, "connections that are open go on"
        ends = daemon.https("GET", "/metrics")[1].decode()
        assert "headwater_certificate_ends_timestamp_seconds 1" in ends
        assert "certificate_replaced" in daemon.log_text()


@pytest.mark.parametrize("how", ["no certificate", "other key", "gone", "torn"])
def test_a_bad_new_pair_is_logged_and_the_old_one_stays(
    tmp_path: Path, authority: Authority, how: str
) -> None:
    with secured(tmp_path, authority) as daemon:
        before = daemon.served()["serialNumber"]
        good = daemon.certificate.read_bytes()
        match how:
            case "no certificate":
                daemon.certificate.write_text("nonsense")
            case "other key":
                authority.issue(tmp_path / "other.pem", daemon.key_file, "127.0.0.1")
            case "gone":
                daemon.certificate.unlink()
            case "torn":
                daemon.certificate.write_bytes(good[: len(good) // 2])
        wait_until(lambda: "certificate_not_replaced" in daemon.log_text())
        assert daemon.served()["serialNumber"] == before
        assert daemon.log_text().count("certificate_not_replaced") == 1
        authority.issue(daemon.certificate, daemon.key_file, "127.0.0.1")
        wait_until(lambda: daemon.served()["serialNumber"] != before)


# ------------------------------------------------------------------------------------------ starts


def start(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run_server(
        "serve", "--data", str(folder / "data"), "--port", "0", "--tcp-port", "0", *options, folder=folder
    )


def test_a_pair_that_cannot_be_served_ends_the_start_with_what_is_wrong(
    tmp_path: Path, authority: Authority
) -> None:
    certificate, key, other = tmp_path / "certificate.pem", tmp_path / "key.pem", tmp_path / "other.pem"
    authority.issue(certificate, key, "127.0.0.1")
    authority.issue(tmp_path / "unused.pem", other, "127.0.0.1")
    (tmp_path / "nonsense.pem").write_text("nonsense")
    command = [
        "openssl",
        "ec",
        "-in",
        str(key),
        "-aes256",
        "-passout",
        "pass:x",
        "-out",
        str(tmp_path / "locked.pem"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    cases = [
        (tmp_path / "missing.pem", key, "missing.pem cannot be read: No such file"),
        (tmp_path, key, "cannot be read: Is a directory"),
        (tmp_path / "nonsense.pem", key, "nonsense.pem holds no certificate"),
        (certificate, tmp_path / "missing.pem", "missing.pem cannot be read"),
        (certificate, tmp_path / "nonsense.pem", "nonsense.pem holds no private key"),
        (certificate, certificate, "certificate.pem holds no private key"),
        (certificate, tmp_path / "locked.pem", "encrypted key"),
        (certificate, other, "other.pem is not the key of the certificate"),
    ]
    for chosen, its_key, told in cases:
        done = start(tmp_path, "--tls-certificate-file", str(chosen), "--tls-key-file", str(its_key))
        assert done.returncode == 1, done.stderr
        assert told in done.stderr, done.stderr
    done = start(tmp_path, "--tls-key-file", str(key))
    assert done.returncode == 1
    assert "tls_certificate_file is not" in done.stderr


def test_a_certificate_that_has_run_out_is_served_with_a_warning(
    tmp_path: Path, authority: Authority
) -> None:
    daemon = SecureDaemon(tmp_path, authority=authority)
    authority.issue(daemon.certificate, daemon.key_file, "127.0.0.1", days=-1)
    daemon.options = (
        "--tls-certificate-file",
        str(daemon.certificate),
        "--tls-key-file",
        str(daemon.key_file),
    )
    try:
        daemon.launch()
        wait_until(lambda: '"ready"' in daemon.log_text(), 60)
        assert "it has run out" in daemon.log_text()
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            daemon.served()
    finally:
        daemon.end()


def test_tcp_beyond_loopback_wants_tls_or_a_word(tmp_path: Path, authority: Authority) -> None:
    port = ("--host", "0.0.0.0", "--port", "0", "--tcp-port", str(free_port()))
    done = run_server("serve", "--data", str(tmp_path / "data"), *port, folder=tmp_path)
    assert done.returncode == 1
    assert "in the clear" in done.stderr
    assert "tcp_without_tls" in done.stderr
    with secured(tmp_path / "secured", authority, "--host", "0.0.0.0") as daemon:
        assert daemon.served(port=daemon.tcp_port)
