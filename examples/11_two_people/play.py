"""The whole of it on one machine: two servers, three accounts, and what happens when the servers go away.

    python play.py                                      # two servers over one directory
    python play.py --database postgresql://… --blobs …  # as a team has them

Each part is a process of its own, with a token and a cache of its own: admin.py, engineer.py, lead.py, service.py.
"""

import argparse
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAM = [sys.executable, "-m", "llmartifacts"]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One of the servers over the registry."""

    def __init__(self, arguments: list[str], name: str) -> None:
        self.port = free_port()
        self.log = Path(f"{name}.log")
        with self.log.open("w") as log:
            command = [*PROGRAM, "serve", "--port", str(self.port), *arguments]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2):
                    return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        raise SystemExit(f"{name} does not answer:\n{self.log.read_text()}")

    def die(self) -> None:
        """Gone at once, as with the machine it ran on."""
        self.process.kill()
        self.process.wait()


class Balancer(threading.Thread):
    """Stands for a balancer before the servers: a connection goes to one that accepts it."""

    def __init__(self, ports: list[int]) -> None:
        super().__init__(daemon=True)
        self.ports = ports
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"

    def run(self) -> None:
        """Take connections until the process ends."""
        while True:
            client, _ = self.listening.accept()
            for port in self.ports:
                try:
                    server = socket.create_connection(("127.0.0.1", port), timeout=5)
                except OSError:
                    continue
                server.settimeout(None)
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.pump, args=(client, server), daemon=True).start()
                threading.Thread(target=self.pump, args=(server, client), daemon=True).start()
                break
            else:
                client.close()

    def pump(self, source: socket.socket, goal: socket.socket) -> None:
        """Carry bytes until one side ends."""
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                goal.sendall(piece)
        for end in (source, goal):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Person:
    """Somebody, or a program, with a token, keys and a cache of their own."""

    def __init__(self, name: str, url: str, token: str) -> None:
        self.name = name
        self.environment = {
            **os.environ,
            "LLMARTIFACTS_REGISTRY": url,
            "LLMARTIFACTS_TOKEN": token,
            "LLMARTIFACTS_KEYS": str(Path(f"{name}-keys").absolute()),
            "LLMARTIFACTS_CACHE": str(Path(f"{name}-cache").absolute()),
        }

    def types(self, *words: str) -> str:
        """What a command of theirs prints."""
        return self.does(*PROGRAM, *words)

    def runs(self, script: str) -> None:
        """One of the scripts beside this one, its output shown."""
        print(self.does(sys.executable, str(HERE / script)), end="", flush=True)

    def does(self, *command: str) -> str:
        """A command, which has to succeed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{self.name}: {' '.join(command)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def starts(self, script: str) -> subprocess.Popen[str]:
        """A script that goes on, until its input ends."""
        made = subprocess.Popen(
            [sys.executable, str(HERE / script)],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        print(f"  {made.stdout.readline().strip()}", flush=True)
        return made


def asked(service: subprocess.Popen[str], question: str) -> str:
    """What a running service answers."""
    service.stdin.write(question + "\n")
    service.stdin.flush()
    return service.stdout.readline().strip()


def main() -> None:
    """From two servers and nothing logged, to no server and a service that goes on."""
    commands = argparse.ArgumentParser(description="Two people, a service, and two servers that die.")
    commands.add_argument("--database", help="PostgreSQL; by default a directory here")
    commands.add_argument("--blobs", default="blobs", help="beside a database: the folder of the bytes")
    given = commands.parse_args()
    if given.database:
        arguments = ["--database", given.database, "--blobs", given.blobs]
    else:
        subprocess.run([*PROGRAM, "init", "registry"], check=True, stdout=subprocess.DEVNULL)
        arguments = ["--registry", "registry"]

    servers: list[Server] = []
    services: list[subprocess.Popen[str]] = []
    try:
        servers = [Server(arguments, f"server-{number}") for number in (1, 2)]
        first_token = re.search(r"\blla_\w+", servers[0].log.read_text())  # printed once, at the very first start
        balancer = Balancer([server.port for server in servers])
        balancer.start()
        print("the administrator makes three accounts, gives them roles, and sets the policy")
        keys = Person("ada", balancer.url, "")
        public = json.loads(keys.types("key", "create", "ada", "--person", "ada", "--json"))["public"]
        admin = Person("admin", balancer.url, first_token[0])
        tokens = json.loads(admin.does(sys.executable, str(HERE / "admin.py"), public))
        bob, ada, support = (Person(name, balancer.url, token) for name, token in tokens.items())

        bob.runs("engineer.py")
        ada.runs("lead.py")

        print("a service starts")
        services.append(support.starts("service.py"))
        print(f"  {asked(services[0], 'When do I get my refund?')}")

        servers[0].die()
        print("one server is gone; another service starts, by the other")
        services.append(support.starts("service.py"))
        print(f"  {asked(services[1], 'When do you ship?')}")

        servers[1].die()
        print("both are gone; who runs goes on, and who starts has the last set that was known good")
        print(f"  {asked(services[0], 'When do I get my refund?')}")
        services.append(support.starts("service.py"))
        print(f"  {asked(services[2], 'When do I get my refund?')}")
    finally:
        for service in services:
            service.stdin.close()
            service.wait(20)
        for server in servers:
            server.die()
    print("the service goes on")


if __name__ == "__main__":
    main()
