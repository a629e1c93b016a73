"""Where the page is served, and to whom: this machine, TLS, a proxy."""

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from pasture.annotate.page import serve as serving
from pasture.annotate.page.gate import Policy
from pasture.core.errors import RecipeError
from pasture.steps.people import agreement
from tests.annotate.people.campaigns import new_desk, opening_events
from tests.annotate.people.served import served


class TestWhereItListens:
    @pytest.mark.parametrize(
        "host",
        [
            "0.0.0.0",  # noqa: S104 - refused
            "192.0.2.1",
            "::",
            "example.org",
        ],
    )
    def test_other_than_this_machine_only_with_tls_or_a_proxy(self, host: str) -> None:

        with pytest.raises(RecipeError, match="in the clear"):
            serving.Place(host).check()
        with_tls = serving.Place(
            host, tls_certificate=Path("c"), tls_key=Path("k"), address="https://label.example.org:8400"
        )
        with_tls.check()
        assert with_tls.origins(8400) == ("https://label.example.org:8400",)
        serving.Place(host, proxy_origin="https://label.example.org").check()
        with pytest.raises(RecipeError, match="https"):
            serving.Place(host, proxy_origin="http://label.example.org").check()

    def test_a_host_that_nobody_types_needs_the_one_they_do(self) -> None:
        place = serving.Place("0.0.0.0", tls_certificate=Path("c"), tls_key=Path("k"))  # noqa: S104 - refused
        with pytest.raises(RecipeError, match="--address"):
            place.check()

    def test_behind_a_proxy_only_its_public_address_is_served(self) -> None:
        place = serving.Place(proxy_origin="https://Label.example.org")
        assert place.origins(8400) == ("https://label.example.org",)
        assert serving.Place().origins(8400) == ("http://127.0.0.1:8400", "http://localhost:8400")
        assert serving.Place("::1").origins(80) == ("http://[::1]",)

    def test_behind_a_proxy_the_public_host_and_the_clients_own_address_count(self, tmp_path: Path) -> None:
        place = serving.Place(port=0, proxy_origin="https://label.example.org")
        with served(tmp_path, opening_events(2, ["ann"]), place=place) as server:
            ann = server.person("ann")
            assert ann.cookie.startswith("__Host-")
            assert ann.get().status == 200
            assert ann.vote("first").status == 303
            assert server.ask("/", host=[f"127.0.0.1:{server.port}"]).status == 400
            guesses = [server.ask(f"/enter/x{n}", headers=[("X-Forwarded-For", "192.0.2.7")]).status for n in range(25)]
            assert guesses[-1] == 429
            assert server.ask("/enter/x", headers=[("X-Forwarded-For", "192.0.2.8")]).status == 404

    def test_with_tls_cookies_are_sent_by_tls_alone(self, tmp_path: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed, so there is no certificate to serve with")
        key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        names = ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate), "-days", "2"]
        subprocess.run([*command, *names], check=True, capture_output=True)
        place = serving.Place(port=0, tls_certificate=certificate, tls_key=key)
        with served(tmp_path, opening_events(2, ["ann"]), place=place) as server:
            server.tls = ssl.create_default_context()
            server.tls.check_hostname, server.tls.verify_mode = False, ssl.CERT_NONE
            reply = server.ask(f"/enter/{server.tokens['ann']}")
            assert "; secure" in (reply.header("set-cookie") or "").lower()
            assert reply.header("strict-transport-security") is not None
            ann = server.person("ann")
            ann.get()
            assert ann.vote("first").status == 303

    def test_a_port_that_is_taken_is_said(self) -> None:

        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            with pytest.raises(RecipeError, match="Choose another --port"):
                serving.listening_at(serving.Place(port=other.getsockname()[1]))

    @pytest.mark.parametrize("wrong", ["certificate", "key"])
    @pytest.mark.parametrize("content", [None, "no PEM"])
    def test_a_certificate_that_cannot_be_used_is_said_before_any_link(
        self, tmp_path: Path, wrong: str, content: str | None
    ) -> None:
        for name in ("certificate", "key"):
            (tmp_path / f"{name}.pem").write_text("no PEM")
        if content is None:
            (tmp_path / f"{wrong}.pem").unlink()
        place = serving.Place(
            port=0, tls_certificate=tmp_path / "certificate.pem", tls_key=tmp_path / "key.pem"
        )  # fmt: skip
        announced: list[object] = []
        with (
            new_desk(tmp_path / "a.campaign") as desk,
            pytest.raises(RecipeError, match=rf"{wrong}\.pem.*no link was made"),
        ):
            serving.serve(desk, place, Policy(()), agreement, announced.append)
        assert announced == []
