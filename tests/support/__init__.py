"""Test infrastructure that knows nothing of ``epoch_oci``: servers, faults, real registries, foreign clients.

Tests import it as ``support`` (``tests/`` is on ``sys.path`` through its ``conftest.py``), never as ``tests.support``:
two names would make two copies of every class.

=================== =====================================================================================
``registry``        ``FakeRegistry``: an in-process registry that conforms until a fault says otherwise
``faults``          what a fault rule may do to an exchange
``registry_auth``   ``BasicAuth`` and ``BearerAuth`` for ``FakeRegistry(auth=...)``
``recorder``        ``Recorder``: another origin that writes down every byte it is sent
``proxy``           ``FaultProxy`` and its toxics: faults below HTTP, on a TCP connection
``live``            CNCF distribution on loopback: anonymous, htpasswd, TLS, token
``token_server``    the JWT token service that ``live`` uses
``peers``           foreign clients (oras, crane, regctl, skopeo), found and run in isolation
``client``          ``Client``: a bare ``http.client`` user for checks that must not use our own stack
``content``         digests, media types and small manifests
``s3``              S3 servers: moto's with faults on request, and the Versity gateway where it is installed
``legacy_epoch``    ``LegacyEpoch``: an Epoch 0.1.x server with its quirks
``canary``          the shapes a secret takes when it leaks
``tls``             ``TlsKit``: good and bad server certificates of a throw-away CA
=================== =====================================================================================
"""
