"""``ctxplan fleet``: many workers, on machines that Slurm, Kubernetes or Ray hands out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import fleet_ray
from app.cli.jobs import Json
from app.cli.output import DONE, leave, print_json, print_text
from ctxplan.variables import SERVER

if TYPE_CHECKING:
    from probes.fleet.order import Order

Server = Annotated[
    str, typer.Option("--server", metavar="URL", envvar=SERVER, help="The service that gives jobs.", show_default=False)
]
Workers = Annotated[int, typer.Option("--workers", metavar="N", help="How many, a GPU for each.")]
MaxJobs = Annotated[
    int | None, typer.Option("--max-jobs", metavar="N", help="Each leaves after N jobs.", show_default=False)
]
IdleExit = Annotated[
    float | None,
    typer.Option("--idle-exit", metavar="SECONDS", help="Each leaves after so long without a job.", show_default=False),
]
Grace = Annotated[
    int, typer.Option("--grace", metavar="SECONDS", help="Between SIGTERM and SIGKILL, for a worker to leave in.")
]
Cpus = Annotated[int, typer.Option("--cpus", metavar="N", help="Cores of each.")]
Memory = Annotated[int, typer.Option("--memory", metavar="GIB", help="Host memory of each, in GiB.")]
Cpu = Annotated[bool, typer.Option("--cpu", help="Work without GPUs: no byte of one is measured.")]
JobName = Annotated[str, typer.Option("--name", metavar="NAME", help="The job's name.")]
Submit = Annotated[bool, typer.Option("--submit", help="Start it, instead of printing it.")]
ProbeCommand = Annotated[str | None, typer.Option("--probe-command", hidden=True)]

Partition = Annotated[str | None, typer.Option("--partition", metavar="NAME", help="As of sbatch.", show_default=False)]
Account = Annotated[str | None, typer.Option("--account", metavar="NAME", help="As of sbatch.", show_default=False)]
Qos = Annotated[str | None, typer.Option("--qos", metavar="NAME", help="As of sbatch.", show_default=False)]
Constraint = Annotated[
    str | None, typer.Option("--constraint", metavar="FEATURES", help="As of sbatch.", show_default=False)
]
SlurmGpu = Annotated[
    str | None,
    typer.Option("--gpu", metavar="TYPE", help="The site's type in the resource gpu:TYPE:1.", show_default=False),
]
SlurmTime = Annotated[
    str | None, typer.Option("--time", metavar="TIME", help="As of sbatch: 04:00:00 is four hours.", show_default=False)
]
Log = Annotated[str, typer.Option("--log", metavar="FILE", help="As sbatch's --output; its folder must be there.")]
Apptainer = Annotated[
    str | None, typer.Option("--image", metavar="IMAGE", help="Run in this image of Apptainer.", show_default=False)
]
SetupLines = Annotated[
    list[str] | None,
    typer.Option(
        "--setup", metavar="LINE", help="A line of shell before the worker; several times.", show_default=False
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="FILE", help="The API key's file, on the nodes.", show_default=False),
]
State = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="For results that wait; outlives the job.", show_default=False),
]

Namespace = Annotated[str, typer.Option("--namespace", metavar="NAME", help="The Job's namespace.")]
Image = Annotated[
    str | None, typer.Option("--image", metavar="IMAGE", help="The probe image.", show_default="ctxplan-probe:VERSION")
]
Product = Annotated[
    str | None,
    typer.Option("--gpu", metavar="PRODUCT", help="The node label nvidia.com/gpu.product.", show_default=False),
]
Selector = Annotated[
    list[str] | None,
    typer.Option("--constraint", metavar="LABEL=VALUE", help="Of the nodes; several times.", show_default=False),
]
RuntimeClass = Annotated[
    str | None, typer.Option("--runtime-class", metavar="NAME", help="Of the pods.", show_default=False)
]
KeySecret = Annotated[str, typer.Option("--key-secret", metavar="NAME", help="The Secret that holds the API key.")]
KeySecretKey = Annotated[str, typer.Option("--key-secret-key", metavar="KEY", help="Where in the Secret.")]
NoKey = Annotated[bool, typer.Option("--no-key", help="The service asks for no API key.")]
Claim = Annotated[
    str | None,
    typer.Option("--claim", metavar="NAME", help="A volume claim for results that wait.", show_default=False),
]
KubernetesTime = Annotated[
    int | None, typer.Option("--time", metavar="SECONDS", help="End the Job after so long.", show_default=False)
]


def register(application: typer.Typer) -> None:
    """Add this file's commands."""
    group = typer.Typer(
        help="Lend many GPUs: workers on Slurm, on Kubernetes, or on a Ray cluster.", no_args_is_help=True
    )
    group.command("slurm")(slurm)
    group.command("kubernetes")(kubernetes)
    fleet_ray.register(group)
    application.add_typer(group, name="fleet")


def slurm(
    server: Server,
    workers: Workers = 1,
    partition: Partition = None,
    account: Account = None,
    qos: Qos = None,
    constraint: Constraint = None,
    gpu: SlurmGpu = None,
    time: SlurmTime = None,
    cpus: Cpus = 8,
    memory: Memory = 64,
    max_jobs: MaxJobs = None,
    idle_exit: IdleExit = None,
    grace: Grace = 120,
    key_file: KeyFile = None,
    state: State = None,
    image: Apptainer = None,
    setup: SetupLines = None,
    log: Log = "%x-%A_%a.log",
    name: JobName = "ctxplan-worker",
    cpu: Cpu = False,
    submit: Submit = False,
    as_json: Json = False,
    probe_command: ProbeCommand = None,
) -> None:
    """Print an sbatch script, an array of workers; with --submit, give it to sbatch.

    The API key is in no script: with --key-file the job reads it on its node, without it sbatch hands over
    CTXPLAN_API_KEY of the environment that it is called in.
    """
    from probes.fleet.order import is_loopback
    from probes.fleet.slurm import Slurm, sbatch_script
    from probes.fleet.submit import SBATCH

    order = _order(server, workers, max_jobs, idle_exit, grace, cpu=cpu, probe_command=probe_command)
    if is_loopback(server):
        typer.echo(f"ctxplan: {server} is, on each node, that node itself", err=True)
    script = sbatch_script(
        order,
        Slurm(
            name=name,
            partition=partition,
            account=account,
            qos=qos,
            constraint=constraint,
            gpu=gpu,
            time=time,
            cpus=cpus,
            memory_gib=memory,
            log=log,
            image=image,
            setup=tuple(setup or ()),
            key_file=_absolute(key_file),
            state=_absolute(state),
        ),
    )
    _answer(script, SBATCH if submit else None, what="script", keep_key=key_file is None, as_json=as_json)


def kubernetes(
    server: Server,
    workers: Workers = 1,
    namespace: Namespace = "ctxplan",
    image: Image = None,
    gpu: Product = None,
    constraint: Selector = None,
    runtime_class: RuntimeClass = None,
    key_secret: KeySecret = "ctxplan-worker",  # noqa: S107 -- the name of one
    key_secret_key: KeySecretKey = "api-key",  # noqa: S107
    no_key: NoKey = False,
    claim: Claim = None,
    time: KubernetesTime = None,
    cpus: Cpus = 8,
    memory: Memory = 64,
    max_jobs: MaxJobs = None,
    idle_exit: IdleExit = None,
    grace: Grace = 120,
    name: JobName = "ctxplan-worker",
    cpu: Cpu = False,
    submit: Submit = False,
    as_json: Json = False,
) -> None:
    """Print a Job of Kubernetes, a pod for each worker; with --submit, give it to kubectl apply.

    The API key is in a Secret of the cluster, and in no manifest.
    """
    from probes.fleet.kubernetes import Kubernetes, job_yaml
    from probes.fleet.submit import KUBECTL

    order = _order(server, workers, max_jobs, idle_exit, grace, cpu=cpu)
    manifest = job_yaml(
        order,
        Kubernetes(
            name=name,
            namespace=namespace,
            **({} if image is None else {"image": image}),
            runtime_class=runtime_class,
            gpu=gpu,
            node_selector=_labels(constraint or []),
            secret=None if no_key else key_secret,
            secret_key=key_secret_key,
            claim=claim,
            seconds=time,
            cpus=cpus,
            memory_gib=memory,
        ),
    )
    _answer(manifest, KUBECTL if submit else None, what="manifest", keep_key=False, as_json=as_json)


def _order(
    server: str,
    workers: int,
    max_jobs: int | None,
    idle_exit: float | None,
    grace: int,
    *,
    cpu: bool,
    probe_command: str | None = None,
) -> Order:
    from probes.fleet.order import Order

    return Order(
        server=server,
        workers=workers,
        max_jobs=max_jobs,
        idle_exit_seconds=idle_exit,
        grace_seconds=grace,
        cpu=cpu,
        probe_command=probe_command,
    )


def _answer(text: str, tool: tuple[str, ...] | None, *, what: str, keep_key: bool, as_json: bool) -> None:
    """Print it, or give it to the tool; as JSON, both are one object."""
    answer = None
    if tool is not None:
        from probes.fleet.submit import submit

        answer = submit(tool, text, keep_key=keep_key)
        typer.echo(f"ctxplan: {tool[0]} answers: {answer}", err=True)
    if as_json:
        print_json({what: text, "submitted": tool is not None, "answer": answer})
    elif tool is None:
        print_text(text)
    raise typer.Exit(DONE)


def _absolute(path: Path | None) -> str | None:
    """As the nodes are to read it: jobs start in another folder than this command."""
    return None if path is None else str(path.expanduser().absolute())


def _labels(given: list[str]) -> dict[str, str]:
    labels = {}
    for one in given:
        label, is_there, value = one.partition("=")
        if not is_there:
            leave(f"--constraint {one}: is no label with its value (allowed: LABEL=VALUE)")
        labels[label] = value
    return labels
