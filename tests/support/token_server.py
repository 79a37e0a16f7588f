"""``TokenServer``: a Docker-style token service that signs JWTs, for registries that verify them.

Grants exactly the scope asked for: everything to ``user``, only ``anonymous`` actions to callers without credentials.
``certificate`` is the PEM file a registry trusts (``rootcertbundle``). ``requests`` are recorded.
Formats: distribution's docs, "Token Authentication Specification" and "Token Authentication Implementation".
"""

import base64
import datetime
import json
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from support.net import Server
from support.recording import Recording
from support.registry_auth import PASSWORD, SCOPE, USER, basic_credentials
from support.wire import Answer, PeerGone, Request, Stream, read_request, wants_to_close, write_answer

ISSUER = "epoch-oci-test-issuer"
SERVICE = "epoch-oci-test-registry"


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _self_signed(key: rsa.RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


class TokenServer(Server):
    """``lifetime`` is in seconds; registries allow 60 s of clock skew on top."""

    def __init__(
        self,
        directory: Path,
        *,
        user: str = USER,
        password: str = PASSWORD,
        anonymous: Sequence[str] = (),
        lifetime: int = 300,
    ) -> None:
        super().__init__()
        self.user, self.password = user, password
        self.anonymous, self.lifetime = frozenset(anonymous), lifetime
        self.recording = Recording()
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        certificate = _self_signed(self._key)
        self.certificate = directory / "token-root.pem"
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self._x5c = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()

    @property
    def realm(self) -> str:
        return f"{self.url}/token"

    def serve(self, sock: socket.socket) -> None:
        stream = Stream(sock)
        with suppress(PeerGone):
            while request := read_request(stream):
                entry = self.recording.add(request, self.connections)
                answer = self._answer(request)
                request.body.read_all()
                entry.status = answer.status
                write_answer(stream, request, answer)
                self.recording.finish(entry)
                if wants_to_close(request):
                    return

    def _answer(self, request: Request) -> Answer:
        if request.path != "/token" or request.method != "GET":
            return Answer.of(404)
        credentials = basic_credentials(request)
        if credentials is not None and credentials != (self.user, self.password):
            return Answer.error(401, "UNAUTHORIZED", "wrong user or password")
        scopes = [scope for value in request.params().get("scope", []) for scope in value.split()]
        token = self.token(credentials[0] if credentials else "", scopes)
        return Answer.json(200, {"token": token, "expires_in": self.lifetime})

    def token(self, user: str, scopes: Sequence[str]) -> str:
        """A signed token for the part of ``scopes`` that ``user`` (empty: nobody) may have."""
        header = {"typ": "JWT", "alg": "RS256", "x5c": [self._x5c]}
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": user,
            "aud": SERVICE,
            "exp": now + self.lifetime,
            "nbf": now - 10,
            "iat": now,
            "jti": secrets.token_hex(8),
            "access": [self._access(user, scope) for scope in scopes if SCOPE.fullmatch(scope)],
        }
        signed = ".".join(_url64(json.dumps(part).encode()) for part in (header, claims))
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_url64(signature)}"

    def _access(self, user: str, scope: str) -> dict[str, object]:
        kind, name, actions = scope.split(":", 1)[0], scope.split(":", 1)[1].rsplit(":", 1)[0], scope.rsplit(":", 1)[1]
        granted = [action for action in actions.split(",") if user or action in self.anonymous]
        return {"type": kind, "name": name, "actions": granted}
