"""`hios serve-measure`: let others measure on the devices of this machine."""

import click

from hios_tvm.cli.options import OutputChoice, output_options
from hios_tvm.cli.terminal import print_json

__all__ = ["command"]


@click.command("serve-measure", short_help="Let `hios collect --tracker` measure here.")
@click.option("--tracker", metavar="HOST:PORT", required=True, help="The tracker to register with.")
@click.option("--key", default="hios", show_default=True, help="Clients ask for servers by it.")
@click.option(
    "--devices",
    metavar="N|LIST",
    default="cpu:0",
    show_default=True,
    help="One server for each; cpu:0 alone has all cores.",
)
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(min=1, max=65535),
    default=9091,
    show_default=True,
    help="First port to try.",
)
@output_options
def command(
    tracker: str, key: str, devices: str, host: str, port: int, output: OutputChoice
) -> None:
    """Start one measuring server for each device, until Ctrl-C.

    Clients upload kernels, which then run here: whoever reaches the port can run anything on this
    machine, and nothing is encrypted. Use it in a trusted network only.

    \b
    Example, on three machines:
      python -m tvm.exec.rpc_tracker --host 0.0.0.0 --port 9190
      hios serve-measure --tracker 10.0.0.1:9190 --key epyc
      hios collect --tracker 10.0.0.1:9190 --key epyc --models x.onnx --out g.jsonl
    """
    import signal
    import threading

    from graph_executor.tvm_runtime.rpc import MeasureServers, count_servers
    from hios_tvm.cli.options import parse_tracker
    from hios_tvm.machines import resolve_machine

    where = parse_tracker(tracker)
    is_count = devices.isascii() and devices.isdigit()
    machine = resolve_machine(int(devices) if is_count else devices)
    count_servers(where, key)  # a tracker that does not answer shows at once
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stopped.set())
    with MeasureServers(machine.devices, where, key, host, port) as servers:
        told = {
            "tracker": tracker,
            "key": key,
            "servers": [
                {"device": device.name, "cores": len(device.cores), "port": at}
                for device, at in zip(machine.devices, servers.ports, strict=True)
            ],
        }
        if output.json:
            print_json(told)
        else:
            for device, at in zip(machine.devices, servers.ports, strict=True):
                click.echo(f"{device.name} serves at port {at} as {key!r}; Ctrl-C ends it")
        import sys

        sys.stdout.flush()
        stopped.wait()
