"""The distribution API of a ``FakeRegistry`` (distribution-spec 1.1; what it leaves open is as CNCF distribution 3)."""

import re
from collections.abc import Callable

from support.registry_auth import Need, NoAuth
from support.registry_blobs import Blobs
from support.registry_call import Behaviour, Call, not_found
from support.registry_manifests import Manifests
from support.registry_state import State
from support.wire import Answer, Request

NAME = r"(?P<name>[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)"
ACTIONS = {"GET": {"pull"}, "HEAD": {"pull"}, "DELETE": {"delete"}}


class Api:
    """Routes a request and answers it from the state."""

    def __init__(self, state: State, auth: NoAuth, behaviour: Behaviour) -> None:
        self.auth = auth
        blobs, manifests = Blobs(state, behaviour), Manifests(state, behaviour)
        self._manifests = manifests
        self._routes: list[tuple[re.Pattern[str], dict[str, Callable[[Call], Answer]]]] = [
            (re.compile(rf"/v2/{NAME}/blobs/uploads/?"), {"POST": blobs.start_upload}),
            (
                re.compile(rf"/v2/{NAME}/blobs/uploads/(?P<reference>[0-9a-zA-Z-]+)"),
                {
                    "PATCH": blobs.patch_upload,
                    "PUT": blobs.close_upload,
                    "GET": blobs.upload_status,
                    "DELETE": blobs.cancel_upload,
                },
            ),
            (
                re.compile(rf"/v2/{NAME}/blobs/(?P<reference>[^/]+)"),
                {"GET": blobs.get_blob, "HEAD": blobs.get_blob, "DELETE": blobs.delete_blob},
            ),
            (
                re.compile(rf"/v2/{NAME}/manifests/(?P<reference>[^/]+)"),
                {
                    "GET": manifests.get_manifest,
                    "HEAD": manifests.get_manifest,
                    "PUT": manifests.put_manifest,
                    "DELETE": manifests.delete_manifest,
                },
            ),
            (re.compile(rf"/v2/{NAME}/tags/list"), {"GET": manifests.list_tags}),
            (re.compile(rf"/v2/{NAME}/referrers/(?P<reference>[^/]+)"), {"GET": manifests.referrers}),
        ]

    def handle(self, request: Request) -> Answer:
        """The answer of a well-behaved registry, authorisation included."""
        token_answer = self.auth.endpoint(request)
        if token_answer is not None:
            return token_answer
        if request.path == "/v2":
            return Answer.of(301, b"", ("Location", "/v2/"))
        if request.path == "/v2/":
            return self.auth.refuse(request, []) or Answer.json(200, {})
        if request.path == "/v2/_catalog" and request.method == "GET":
            return self.auth.refuse(request, []) or self._manifests.catalog(request)
        for pattern, methods in self._routes:
            if hit := pattern.fullmatch(request.path):
                return self._dispatch(Call(request, **hit.groupdict()), methods)
        return not_found()

    def needs_of(self, request: Request) -> list[Need]:
        """The same for a request that was not routed; none for ``/v2/`` and unknown paths."""
        for pattern, _ in self._routes:
            if hit := pattern.fullmatch(request.path):
                return self.needs(Call(request, **hit.groupdict()))
        return []

    def _dispatch(self, call: Call, methods: dict[str, Callable[[Call], Answer]]) -> Answer:
        action = methods.get(call.request.method)
        if action is None:
            return Answer.of(405, b"Method not allowed\n", ("Allow", ", ".join(sorted(methods))))
        refusal = self.auth.refuse(call.request, self.needs(call))
        return refusal or action(call)

    @staticmethod
    def needs(call: Call) -> list[Need]:
        """What a request needs; a mount needs pull on its source as well."""
        needs = [(call.name, frozenset(ACTIONS.get(call.request.method, {"pull", "push"})))]
        source = call.request.param("from")
        if call.request.method == "POST" and source:
            needs.append((source, frozenset({"pull"})))
        return needs
