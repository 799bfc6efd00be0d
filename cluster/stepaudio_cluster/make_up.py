"""`make up`: from an empty machine to a spoken answer. Each step leaves what is right as it is."""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stepaudio_cluster import packages
from stepaudio_cluster.api import Cluster, Provider, choose
from stepaudio_cluster.errors import ClusterError
from stepaudio_cluster.images import GATEWAY, OPERATOR, PLAIN, REPOSITORY, RUNTIME_CPU, Builder
from stepaudio_cluster.progress import say, step, table
from stepaudio_cluster.settings import DEFAULT_NAME, Mode, Places, Wish

PROJECT = Path(__file__).resolve().parents[2]
RELEASE = "step-audio"  # Helm release and namespace of the operator
DEPLOYMENT = "nano"
NANO_IMAGES = (OPERATOR, GATEWAY, RUNTIME_CPU)
READY_S = 900.0  # patience for the nano pods; loading three engines takes about two minutes on two cores
REPORT_EVERY_S = 15.0


@dataclass(frozen=True)
class Up:
    """One run of `make up` for the checkout `project` on the cluster `name`. Nodes get the images from
    `registry`, if one is named (see `Builder.push`).
    """

    name: str
    logs: Path
    project: Path = PROJECT
    registry: str = ""

    def run(self, reply: Path) -> None:
        """Everything, from the cluster to the answer in `reply`."""
        cluster, builder = self._cluster_and_images()
        self.load_images(cluster, builder)
        self.install_operator(cluster, builder)
        self.apply_nano(cluster, builder)
        wait_ready(cluster, DEPLOYMENT, READY_S)
        self.forget_old_images(cluster, builder)
        url = self.hello(cluster, reply)
        print(cluster.kubectl("get", "sad,sap,pods", "-o", "wide"))
        if cluster.provider is not Provider.OWN:  # the way that `hello` took is closed again
            url = "http://localhost:8080/v1"
            print(f"first run:  kubectl port-forward service/{DEPLOYMENT}-gateway 8080:80")
        print(f"API:        {url}")
        print(f"Web page:   {page_url(url)}")
        print(f"kubeconfig: export KUBECONFIG={cluster.kubeconfig}")
        print("The nano models know a small domain of English: numbers, lights, timers, the time.")
        if took := table():
            print(f"Where the time went:\n{took}")

    def _cluster_and_images(self) -> tuple[Cluster, Builder]:
        """The cluster (compiling Go) and the images (downloading, copying) use the machine side by side."""
        if choose(Mode.NODE) is Provider.OWN:
            # What is missing is said now, not after minutes of building images.
            packages.check_root()
            packages.check_disk(Places.of(self.name).state)
            packages.ensure_packages()  # buildah is among them
        up: list[Cluster] = []
        failures: list[BaseException] = []

        def bring_up() -> None:
            try:
                up.append(Cluster.up(Wish(name=self.name, mode=Mode.NODE)))
            except BaseException as failure:  # raised again by the caller's thread
                failures.append(failure)

        thread = threading.Thread(target=bring_up, name="cluster")
        thread.start()
        try:
            builder = self.build_images()
        finally:
            thread.join()
        if failures:
            raise failures[0]
        return up[0], builder

    def build_images(self) -> Builder:
        """The three images that nano runs on, each only if its content changed."""
        builder = Builder.detect(self.project, self.logs)
        for image in NANO_IMAGES:
            builder.build(image)
        return builder

    def load_images(self, cluster: Cluster, builder: Builder) -> None:
        """Gives the nodes the images that they do not have."""
        if self.registry:
            for image in NANO_IMAGES:
                builder.push(image, self.registry)
            return
        if cluster.provider is Provider.CURRENT:
            wanted = ", ".join(builder.reference(image) for image in NANO_IMAGES)
            say(f"CLUSTER=current without REGISTRY=registry.example.com/team: its nodes must have {wanted}")
            return
        for image in NANO_IMAGES:
            reference = builder.reference(image)
            if cluster.has_image(reference):
                continue
            with step(f"load {image.name}"), builder.archive(reference) as archive:
                if builder.tool == "buildah":
                    cluster.load_lacking(archive, reference)
                else:
                    cluster.load(archive)

    def forget_old_images(self, cluster: Cluster, builder: Builder) -> None:
        """Frees the disk of images that neither this checkout nor any pod uses."""
        builder.forget_old()
        used = "jsonpath={.items[*].spec.containers[*].image}"
        pods = cluster.kubectl("get", "pods", "--all-namespaces", "-o", used).split()
        present = {builder.reference(image) for image in NANO_IMAGES}
        cluster.forget_images(REPOSITORY, present | {f"docker.io/{image}" for image in pods})

    def install_operator(self, cluster: Cluster, builder: Builder) -> None:
        """Installs or upgrades the chart and waits for the operator."""
        registry = self.registry.removeprefix(PLAIN)
        values = {
            "image": {"registry": registry, "tag": builder.reference(OPERATOR).rpartition(":")[2]},
            "runtime": {"registry": registry, "version": builder.version()},
        }
        with step("operator"):
            self._helm(
                cluster,
                *("upgrade", "--install", RELEASE, str(self.project / "charts/step-audio")),
                *("--namespace", RELEASE, "--create-namespace", "--wait", "--timeout", "5m", "--values", "-"),
                stdin=yaml.safe_dump(values),
            )

    def apply_nano(self, cluster: Cluster, builder: Builder) -> None:
        """Applies `examples/nano.yaml` with the runtime of this checkout."""
        manifest = yaml.safe_load((self.project / "examples/nano.yaml").read_text())
        registry = self.registry.removeprefix(PLAIN)
        manifest["spec"]["runtime"] = {
            "version": builder.version(),
            **({"registry": registry} if registry else {}),
        }
        cluster.kubectl(
            "apply",
            "--server-side",
            "--field-manager=make-up",
            "--force-conflicts",
            "-f",
            "-",
            stdin=json.dumps(manifest),
        )

    def hello(self, cluster: Cluster, reply: Path) -> str:
        """Sends the example's question and prints what came back; returns the URL of the API."""
        with cluster_url(cluster, f"{DEPLOYMENT}-gateway") as url, step("a question, an answer"):
            examples = self.project / "examples"
            command = [
                sys.executable,
                str(examples / "hello.py"),
                url,
                str(examples / "hello.wav"),
                str(reply),
            ]
            if subprocess.run(command, check=False).returncode:
                raise ClusterError(
                    f"the question got no answer; see: kubectl logs deploy/{DEPLOYMENT}-gateway"
                )
        return url

    def _helm(self, cluster: Cluster, *arguments: str, stdin: str) -> None:
        command = [cluster.program("helm"), "--kubeconfig", str(cluster.kubeconfig), *arguments]
        result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if result.returncode:
            state = cluster.kubectl("get", "pods", "--namespace", RELEASE, check=False)
            raise ClusterError(f"helm: {result.stderr.strip()}\n{state}")


@contextmanager
def cluster_url(cluster: Cluster, service: str) -> Iterator[str]:
    """URL of a Service's API from this machine: direct in our own cluster, else by port-forward."""
    if cluster.provider is Provider.OWN:
        address = cluster.kubectl("get", "service", service, "-o", "jsonpath={.spec.clusterIP}")
        yield f"http://{address}/v1"
        return
    command = [cluster.program("kubectl"), f"--kubeconfig={cluster.kubeconfig}"]
    command += ["port-forward", f"service/{service}", ":80"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        try:
            assert forward.stdout is not None  # noqa: S101 - it was asked for above
            line = forward.stdout.readline()  # Forwarding from 127.0.0.1:41234 -> 8080
            yield f"http://{line.split()[2]}/v1"
        finally:
            forward.terminate()


def page_url(api_url: str) -> str:
    """Where the gateway whose API is at `api_url` shows its web page."""
    return api_url.removesuffix("v1")


def deployment_state(cluster: Cluster, name: str) -> tuple[bool, str]:
    """Whether the deployment is Ready for its present generation, and its state in words."""
    raw: dict[str, Any] = json.loads(cluster.kubectl("get", "sad", name, "-o", "json"))
    status = raw.get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    ready = conditions.get("Ready", {})
    current = status.get("observedGeneration") == raw["metadata"]["generation"]
    words = f"{ready.get('reason', 'Pending')}: {ready.get('message', 'not seen by the operator yet')}"
    return bool(current and ready.get("status") == "True"), words


def wait_ready(cluster: Cluster, name: str, patience_s: float) -> None:
    """Waits until the deployment is Ready, saying every now and then what it waits for."""
    with step(f"deployment {name} ready"):
        end = time.monotonic() + patience_s
        told, told_at = "", 0.0
        while True:
            ready, words = deployment_state(cluster, name)
            if ready:
                return
            now = time.monotonic()
            if now > end:
                pods = cluster.kubectl("get", "pods", check=False)
                raise ClusterError(f"{name} is not Ready after {patience_s:.0f} s: {words}\n{pods}")
            if words != told or now - told_at > REPORT_EVERY_S * 4:
                say(f"  {words}")
                told, told_at = words, now
            time.sleep(1)


def main() -> int:
    """`make up`; exit status 1 with one message when something is wrong or missing."""
    parser = argparse.ArgumentParser(prog="make up", description=__doc__)
    parser.add_argument("--name", default=DEFAULT_NAME, help=f"which cluster (default {DEFAULT_NAME})")
    parser.add_argument("--reply", type=Path, default=Path("reply.wav"), help="where the answer is saved")
    arguments = parser.parse_args()
    try:
        logs = Places.of(arguments.name).base / "image-logs"
        Up(arguments.name, logs, registry=os.environ.get("REGISTRY", "")).run(arguments.reply)
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
