"""What `sudo tools/demo` shows, in the order of the functions below. Each step checks what it claims."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

from rich.rule import Rule
from rich.syntax import Syntax

from tools.demolib import headers
from tools.demolib.stage import GATEWAY_ADDRESS, NETNS, OUTSIDE_ADDRESS, DemoError, Stage, wait_until

WEB_PORT, NOTEBOOK_PORT = 9999, 1111
WEB_URL = f"http://{GATEWAY_ADDRESS}:{WEB_PORT}/"
NOTEBOOK_URL = f"http://{GATEWAY_ADDRESS}:{NOTEBOOK_PORT}"
EXPECTED = {
    "web": ("172.17.0.2", "02:42:ac:11:00:02"),
    "notebook": ("172.17.0.3", "02:42:ac:11:00:03"),
}

PICTURE = f"""\
   outside                   gateway                    containers
 ┌──────────────┐      ┌───────────────────────┐
 │ {OUTSIDE_ADDRESS} ├─veth─┤ {GATEWAY_ADDRESS}          │       ┌──────────────────────┐
 └──────────────┘      │                       │  ┌─tap┤ web       172.17.0.2 │
                       │ :{WEB_PORT} → web:80        │  │    └──────────────────────┘
                       │ :{NOTEBOOK_PORT} → notebook:8888 ├──┤    ┌──────────────────────┐
                       │     natgw, 172.17.0.1 │  └─tap┤ notebook  172.17.0.3 │
                       └───────────────────────┘       └──────────────────────┘
"""

APACHE = """\
ServerRoot {directory}
ServerName web
PidFile {directory}/apache.pid
Listen 80
User www-data
Group www-data
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
DocumentRoot {directory}/www
ErrorLog /proc/self/fd/2
LogFormat "%h asked for %U and got %>s" short
CustomLog /proc/self/fd/1 short
"""


class Story:
    def __init__(self, stage: Stage, *, light: bool) -> None:
        self.stage = stage
        self.console = stage.console
        self.light = light
        self._step = 0

    def tell(self) -> None:
        self.the_ground()
        self.the_daemon()
        self.the_containers()
        self.the_way_out()
        self.the_way_in()
        if not self.light:
            self.a_kernel_over_a_websocket()
        self.both_sides_of_each_flow()
        self.a_header_before_and_after()
        self.the_network_as_docker_prints_it()

    # ---- the steps ------------------------------------------------------------------------------------------

    def the_ground(self) -> None:
        self.step("Two hosts and a wire", "An outside host and a gateway: network namespaces joined by a veth pair.")
        self.stage.build()
        mirror = (sys.executable, "-m", "tools.demolib.mirror", OUTSIDE_ADDRESS, "80")
        self.stage.background(*mirror, at=self.stage.outside)
        listens = ("curl", "-s", "-o", "/dev/null", f"http://{OUTSIDE_ADDRESS}/")
        if not wait_until(lambda: self.stage.succeeds(*listens, at=self.stage.outside), within_s=20):
            raise DemoError("the outside host's web server did not start")
        self.console.print(PICTURE, style="cyan", soft_wrap=True)

    def the_daemon(self) -> None:
        self.step(
            "natgw up",
            "One process becomes the bridge, the gateway and the NAT. No Linux bridge, no iptables or nftables rule.",
        )
        self.stage.run("natgw", "up", "--detach", "--uplink", "eth0", at=self.stage.gateway)
        self.stage.run("natgw", "status")

    def the_containers(self) -> None:
        self.step(
            "Two containers",
            "Each is a process in a network namespace of its own, with a TAP of natgw's as its eth0.",
        )
        self.stage.run("natgw", "run", "-d", "--name", "web", "-p", f"{WEB_PORT}:80", "--", *self.web_command())
        self.stage.run(
            *("natgw", "run", "-d", "--name", "notebook", "-p", f"{NOTEBOOK_PORT}:8888", "--"),
            *self.notebook_command(),
        )
        self.stage.run("natgw", "ps")
        for name, (ip, mac) in EXPECTED.items():
            container = self.container(name)
            self.check(f"{name} has {ip} and {mac}", (container["ip"], container["mac"]) == (ip, mac))
        self.stage.run("natgw", "exec", "web", "--", "ip", "-brief", "address", "show", "eth0")
        self.stage.run("natgw", "exec", "web", "--", "ip", "route")

    def the_way_out(self) -> None:
        self.step(
            "Out: NAPT",
            "The containers reach the outside; it sees the gateway's address, and a port of the gateway's.",
        )
        for name in EXPECTED:
            self.stage.run("natgw", "exec", name, "--", "ping", "-c", "2", "-i", "0.2", OUTSIDE_ADDRESS)
        self.stage.run(*self.curl_from_web())

    def the_way_in(self) -> None:
        self.step(
            "In: published ports",
            f"The outside asks the gateway's address at ports {WEB_PORT} and {NOTEBOOK_PORT}; the containers answer.",
        )
        self.wait_for("web", 80)
        self.stage.run("curl", "-sS", WEB_URL, at=self.stage.outside)
        self.wait_for("notebook", 8888)
        self.stage.run("curl", "-sS", f"{NOTEBOOK_URL}/{self.notebook_page}", at=self.stage.outside)
        self.console.print("\n\nThe web server saw the visitor's own address:")
        self.stage.run("natgw", "logs", "web")
        self.check("no address was hidden on the way in", OUTSIDE_ADDRESS in self.stage.output("natgw", "logs", "web"))

    def a_kernel_over_a_websocket(self) -> None:
        self.step(
            "A Jupyter kernel, over its websocket",
            "The token is read from the server's log. The code runs in the container and itself looks outside.",
        )
        log = self.stage.output("natgw", "logs", "notebook")
        token = re.search(r"token=([0-9a-f]{20,})", log)
        if token is None:
            raise DemoError("Jupyter's log shows no token; it reads:\n" + log)
        self.console.print(f"natgw logs notebook: token={token[1]}")
        code = (
            "import urllib.request as u; "
            f"print(6 * 7, 'says the kernel;', u.urlopen('http://{OUTSIDE_ADDRESS}/').read().decode().strip())"
        )
        command = (sys.executable, "-m", "tools.demolib.kernel", NOTEBOOK_URL, token[1], code)
        self.console.print(Syntax(code, "python", word_wrap=True, background_color="default"))
        answer = self.stage.output(*command, at=self.stage.outside)
        self.console.print(answer.strip(), style="bold cyan")
        self.check("the kernel ran, and reached the outside", answer.startswith("42") and GATEWAY_ADDRESS in answer)

    def both_sides_of_each_flow(self) -> None:
        self.step(
            "The flow table",
            "Each conversation as the containers see it and as the outside sees it.",
        )
        self.stage.run("natgw", "flows")
        self.stage.run("natgw", "port")

    def a_header_before_and_after(self) -> None:
        self.step(
            "A header before and after its rewrite",
            "The first packet of a connection, caught at both ends by packet sockets. What changed is in colour.",
        )
        outside, web = NETNS / self.stage.outside, Path(self.container("web")["netns"])
        self.show_headers("at web's eth0", web, "at the outside", outside, lambda: self.stage.run(*self.curl_from_web()))
        self.show_headers(
            "at the outside",
            outside,
            "at web's eth0",
            web,
            lambda: self.stage.run("curl", "-sS", "-o", "/dev/null", WEB_URL, at=self.stage.outside),
        )
        self.console.print("A partial checksum sums the pseudo-header alone: with offload, the last real link does the rest.")

    def the_network_as_docker_prints_it(self) -> None:
        self.step("natgw network inspect bridge", "The same JSON as docker's, field by field.")
        self.stage.run("natgw", "network", "inspect", "bridge")

    # ---- the containers' programs ---------------------------------------------------------------------------

    def web_command(self) -> list[str]:
        if self.light:
            return ["python3", "-m", "http.server", "80", "--directory", self.page("web")]
        directory = Path(self.page("web")).parent
        # Apache's workers are not root.
        for path in (self.stage.directory, directory, directory / "www"):
            path.chmod(0o711 if path != directory / "www" else 0o755)
        configuration = directory / "apache.conf"
        configuration.write_text(APACHE.format(directory=directory))
        return ["apache2", "-f", str(configuration), "-DFOREGROUND"]

    def notebook_command(self) -> list[str]:
        page = self.page("notebook")
        if self.light:
            return ["python3", "-m", "http.server", "8888", "--directory", page]
        home = Path(page).parent
        return [
            *("env", f"HOME={home}", "jupyter", "server", "--ip=0.0.0.0", "--port=8888"),
            *("--no-browser", "--allow-root", f"--ServerApp.root_dir={page}"),
        ]

    @property
    def notebook_page(self) -> str:
        return "" if self.light else "api"

    def page(self, name: str) -> str:
        """A directory with a page to serve."""
        directory = self.stage.directory / name / "www"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "index.html").write_text(f"<h1>Hello from the container {name}</h1>\n")
        return str(directory)

    # ---- helpers --------------------------------------------------------------------------------------------

    def step(self, title: str, text: str) -> None:
        self._step += 1
        self.console.print()
        self.console.print(Rule(f"[bold]{self._step}. {title}", align="left", style="blue"))
        self.console.print(text + "\n", style="italic")

    def check(self, claim: str, holds: bool) -> None:
        if not holds:
            raise DemoError(f"not so: {claim}")
        self.console.print(f"[bold green]✓[/] {claim}")

    def container(self, name: str) -> dict[str, Any]:
        containers: list[dict[str, Any]] = json.loads(self.stage.output("natgw", "ps", "--json"))
        return next(container for container in containers if container["name"] == name)

    def curl_from_web(self) -> list[str]:
        return ["natgw", "exec", "web", "--", "curl", "-sS", f"http://{OUTSIDE_ADDRESS}/"]

    def wait_for(self, container: str, port: int, *, within_s: float = 60) -> None:
        """Until the container's server listens; asked from inside, so that no refused attempt fills the flow table."""
        ask = ("natgw", "exec", container, "--", "curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{port}/")
        with self.console.status(f"waiting for {container}"):
            if wait_until(lambda: self.stage.succeeds(*ask), within_s=within_s):
                return
        log = self.stage.output("natgw", "logs", container)
        raise DemoError(f"{container} does not listen on port {port} after {within_s:g} s\n{log}".strip())

    def show_headers(
        self, before_title: str, before: Path, after_title: str, after: Path, provoke: Callable[[], None]
    ) -> None:
        try:
            first, second = headers.catch(before, after, provoke)
        except LookupError as error:
            raise DemoError(str(error)) from None
        self.console.print(headers.side_by_side(first, second, before_title, after_title))


def how_to_look_around(stage: Stage) -> str:
    return dedent(f"""\
        Everything is still up. To look around, as root:

            export NATGW_SOCKET={stage.socket} PATH={Path(sys.executable).parent}:$PATH
            natgw ps
            natgw flows
            natgw exec web -- ping {OUTSIDE_ADDRESS}
            nsenter --net={NETNS / stage.outside} curl {WEB_URL}
            nsenter --net={NETNS / stage.gateway} ip address

        To remove it: sudo tools/demo --remove
        """)
