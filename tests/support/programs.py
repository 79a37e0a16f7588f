"""Real programs on loopback, where they are on PATH: Epoch with its database and its bucket, zot, Gitea.

    with Epoch(tmp_path, s3) as epoch:            # needs `epoch`, `mariadbd`, `mariadb-install-db`; s3 a VersityS3
        epoch.address, epoch.token, epoch.bucket

Each has a directory of its own and a log there; ports are free ones.
"""

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from support.net import LOOPBACK, hold
from support.peers import find_peer, peer_environment, run_peer
from support.s3 import VersityS3

START_SECONDS = 60.0
TOKEN, USER, PASSWORD = "epoch-canary-5d1c90", "tester", "gitea-canary-41ab7e"


class Program:
    """A server that is stopped when its block ends."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ports = [hold()]
        self.port = self._ports[0].getsockname()[1]
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def start(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        while self._processes:
            process = self._processes.pop()
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(60)
        while self._ports:
            self._ports.pop().close()

    def run(self, name: str, *words: object, port: int, env: Mapping[str, str] | None = None) -> None:
        """Start a program, and wait until it listens."""
        log = self.directory / f"{name}.log"
        executable = find_peer(name)
        assert executable is not None
        with log.open("ab") as file:
            process = subprocess.Popen(
                [str(executable), *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=peer_environment(self.directory, env),
                cwd=self.directory,
                start_new_session=True,
            )
        self._processes.append(process)
        wait_for(port, lambda: process.poll() is None, log)


def wait_for(port: int, alive: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection((LOOPBACK, port), 1).close()
            return
        if not alive() or time.monotonic() > deadline:
            raise RuntimeError(log.read_text("utf-8", "replace"))
        time.sleep(0.05)


class Epoch(Program):
    """The server of a modern Epoch. What it keeps is in `bucket` below `epoch/`."""

    token = TOKEN

    def __init__(self, directory: Path, s3: VersityS3) -> None:
        super().__init__(directory)
        self.s3, self.bucket = s3, s3.make_bucket()
        self._ports.append(hold())
        self._database = self._ports[1].getsockname()[1]

    @property
    def environ(self) -> dict[str, str]:
        """For its own command line."""
        return {"EPOCH_SERVER": f"http://{self.address}", "EPOCH_REGISTRY_TOKEN": TOKEN}

    def start(self) -> None:
        data, init = self.directory / "mysql", self.directory / "init.sql"
        init.write_text("CREATE DATABASE IF NOT EXISTS epoch;\n")
        user = [f"--user={os.environ.get('USER', 'root')}"] if os.geteuid() == 0 else []
        run_peer(
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *user,
            home=self.directory,
            timeout=START_SECONDS,
        )
        words = [f"--datadir={data}", f"--socket={self.directory}/s", f"--port={self._database}", *user]
        words += [f"--bind-address={LOOPBACK}", f"--init-file={init}", "--innodb-flush-log-at-trx-commit=0"]
        self.run("mariadbd", "--no-defaults", *words, port=self._database)
        dsn = f"root@tcp({LOOPBACK}:{self._database})/epoch?parseTime=true"
        env = {**self.s3.environ(self.bucket), "EPOCH_REGISTRY_TOKEN": TOKEN, "EPOCH_S3_PREFIX": "epoch/"}
        env |= {"EPOCH_UPLOAD_DIR": str(self.directory / "uploads")}
        (self.directory / "uploads").mkdir()
        self.run("epoch", "serve", "--addr", self.address, "--dsn", dsn, port=self.port, env=env)


class Zot(Program):
    """zot, open to everybody."""

    def start(self) -> None:
        config = self.directory / "zot.json"
        storage = {"rootDirectory": str(self.directory / "storage")}
        http = {"address": LOOPBACK, "port": str(self.port)}
        config.write_text(json.dumps({"distSpecVersion": "1.1.1", "storage": storage, "http": http}))
        self.run("zot", "serve", config, port=self.port)


class Gitea(Program):
    """Gitea, whose registry is below the name of a user."""

    user, password = USER, PASSWORD

    def start(self) -> None:
        self._config = self.directory / "app.ini"
        data = self.directory / "data"
        data.mkdir()
        self._config.write_text(
            "I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true\n"
            "[server]\n"
            f"HTTP_ADDR = {LOOPBACK}\nHTTP_PORT = {self.port}\nROOT_URL = http://{self.address}/\n"
            f"APP_DATA_PATH = {data}\nOFFLINE_MODE = true\nDISABLE_SSH = true\n"
            f"[database]\nDB_TYPE = sqlite3\nPATH = {data}/gitea.db\n"
            "[security]\nINSTALL_LOCK = true\nPASSWORD_HASH_ALGO = pbkdf2_v1\n"
        )
        env = {"GITEA_WORK_DIR": str(self.directory)}
        common = ["--config", str(self._config)]
        run_peer("gitea", "migrate", *common, home=self.directory, env=env, timeout=START_SECONDS)
        named = ["--username", USER, "--password", PASSWORD, "--email", "t@example.com", "--must-change-password=false"]
        run_peer(
            "gitea", "admin", "user", "create", *named, *common, home=self.directory, env=env, timeout=START_SECONDS
        )
        self.run("gitea", "web", *common, port=self.port, env=env)
