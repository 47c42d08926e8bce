"""`hios collect`: measure groups of concurrent operators, or links."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hios_tvm.cli.options import OutputChoice, output_options, parse_duration, parse_tracker
from hios_tvm.cli.terminal import console, print_json, progress_bar

if TYPE_CHECKING:
    from hios.ir.machine import Device, Machine
    from hios_tvm.collecting import CollectResult

__all__ = ["command"]


@click.command("collect", short_help="Measure groups of operators for the cost model, or links.")
@click.option(
    "--models",
    metavar="LIST",
    help="Networks, as zoo:squeezenet@224,light:inception_v1,x.onnx,y.hios.",
)
@click.option("--target", metavar="TARGET", help="TVM target.  [default: as the devices say]")
@click.option(
    "--devices",
    metavar="N|LIST",
    help="Where: equal devices are measured once.  [default: cpu:0 with all cores; for --links one "
    "for each core]",
)
@click.option("--machine", metavar="PRESET|FILE", help="A described machine instead.")
@click.option(
    "--groups",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Groups that the file shall hold in the end.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The file, .jsonl or .jsonl.gz; it only grows."
)
@click.option(
    "--train", type=click.Path(path_type=Path), metavar="FILE", help="Train a model at the end."
)
@click.option(
    "--active",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Measure those groups first of which this model is least sure.",
)
@click.option("--links", is_flag=True, help="Measure copies between the devices.")
@click.option(
    "--machine-out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the devices with their measured links, for --machine.",
)
@click.option(
    "--tracker",
    metavar="HOST:PORT",
    help="Measure on servers of this tracker (trusted networks only).",
)
@click.option("--key", default="hios", show_default=True, help="Of the servers.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--budget", metavar="TIME", help="Begin no group after this long: 90s, 10m, 2h.")
@click.option(
    "--longest",
    metavar="TIME",
    default="2s",
    show_default=True,
    help="Leave out groups whose 30 rounds would take longer than this.",
)
@click.option(
    "--drift",
    type=click.FloatRange(min=0, min_open=True),
    default=0.02,
    show_default=True,
    metavar="FRACTION",
    help="Reject groups over which the sentinel changed by more.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="Least samples of each thing in one visit of a group.",
)
@click.option(
    "--visits",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Measure all groups so many times over: what counts is the middle of the visits.",
)
@click.option(
    "--repeat/--no-repeat",
    default=True,
    show_default=True,
    help="Measure one group in twenty again in another process: the noise floor.",
)
@click.option(
    "--artifacts",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Keep compiled models here for the next time; remove it when kernels change.",
)
@output_options
def command(
    models: str | None,
    target: str | None,
    devices: str | None,
    machine: str | None,
    groups: int,
    out: Path | None,
    train: Path | None,
    active: Path | None,
    links: bool,
    machine_out: Path | None,
    tracker: str | None,
    key: str,
    seed: int,
    budget: str | None,
    longest: str,
    drift: float,
    rounds: int,
    visits: int,
    repeat: bool,
    artifacts: Path | None,
    output: OutputChoice,
) -> None:
    """Measure groups of operators that run at once, one line of JSON each.

    Each group is measured beside its operators alone and one after another, at least 30 times.
    The file only grows: stop whenever you like, and the same command goes on. With --links,
    copies between devices are measured (alone, or before the groups).

    \b
    Examples:
      hios collect --models zoo:squeezenet@224,light:inception_v1 --groups 500 --out g.jsonl
      hios collect --models x.onnx --out g.jsonl --budget 10m --train m.ubj
      hios collect --models x.onnx --out g.jsonl --tracker 10.0.0.1:9190 --key a100
      hios collect --links --devices cpu:0,cpu:1 --machine-out here.json
    """
    from hios.errors import InvalidOption

    if models is None and not links:
        raise InvalidOption("nothing to collect; give --models and --out, or --links")
    if (models is None) != (out is None):
        raise InvalidOption("--models and --out go together: what to measure, and where it goes")
    if machine_out is not None and not links:
        raise InvalidOption("--machine-out writes measured links; add --links")
    if models is None and (train or active or tracker):
        raise InvalidOption("--train, --active and --tracker need --models")
    if active is not None and tracker is not None:
        raise InvalidOption(
            "--active measures every operator alone on this machine, which says nothing about "
            "the servers of --tracker; give one of them"
        )
    seconds = None if budget is None else parse_duration(budget)
    told: dict[str, Any] = {}
    if links:
        told["links"] = _links(_machine(devices, machine, None), machine_out, output)
    if models is not None and out is not None:
        from cost_model.collect import CollectOptions
        from graph_executor.group_timer import GroupOptions
        from hios_tvm.collecting import (
            ModelShelf,
            Wanted,
            collect_groups,
            measured_devices,
            parse_models,
        )

        names = parse_models(models)
        place = _machine(devices, machine, "cpu:0")
        usual = GroupOptions()
        measuring = replace(
            usual,
            rounds=rounds,
            most_rounds=max(rounds, usual.most_rounds * rounds // usual.rounds),
            budget_ms=usual.budget_ms * rounds / usual.rounds,
            longest_s=parse_duration(longest, "--longest"),
            drift=drift,
        )
        options = CollectOptions(groups, seconds, measuring)
        wanted = Wanted(
            out,
            options,
            seed,
            None if tracker is None else parse_tracker(tracker),
            key,
            repeat,
            visits,
        )
        results = []
        for device in measured_devices(place):
            with (
                progress_bar("collect", output.quiet or output.json, is_still=True) as progress,
                ModelShelf(names, target, device, artifacts, seed, progress) as shelf,
            ):
                unsure = None if active is None else shelf.uncertainty(active, device)
                results.append((device, collect_groups(shelf, device, wanted, unsure, progress)))
        told |= _tell_groups(results, output)
        if train is not None:
            told["model"] = _train(out, train, output)
    if output.json:
        print_json(told)


def _machine(devices: str | None, machine: str | None, default: str | None) -> "Machine":
    from hios_tvm.machines import resolve_machine

    if devices is None and machine is None:
        devices = default
    if devices is not None and devices.isascii() and devices.isdigit():
        return resolve_machine(int(devices), machine)
    return resolve_machine(devices, machine)


def _links(place: "Machine", path: Path | None, output: OutputChoice) -> list[dict[str, Any]]:
    from graph_executor.links import machine_with, sample_links
    from hios.errors import InvalidOption
    from hios.ir.serial import write_bytes

    if len(place.devices) < 2:
        raise InvalidOption(
            f"--links on {len(place.devices)} device: a link needs two, as in --devices cpu:0,cpu:1"
        )
    with progress_bar("links", output.quiet or output.json, is_still=True) as progress:
        sampled = sample_links(place, progress)
    names = [device.name for device in place.devices]
    if path is not None:
        write_bytes(path, machine_with(place, sampled).to_json())
    told = [
        {
            "src": names[link.src],
            "dst": names[link.dst],
            "latency_us": link.fit.latency_us,
            "bandwidth_gb_s": link.fit.bandwidth_gb_s,
            "copies": [
                {
                    "bytes": size,
                    "median_us": times.median_us,
                    "p10_us": times.p10_us,
                    "p90_us": times.p90_us,
                    "n": len(times.times_us),
                    "residual": residual,
                }
                for size, times, residual in zip(
                    link.sizes_bytes, link.times, link.residuals, strict=True
                )
            ],
        }
        for link in sampled
    ]
    if not output.json:
        from hios_tvm.report.summary import format_bytes, format_us, rows_table

        sizes = [format_bytes(size) for size in sampled[0].sizes_bytes]
        rows = [
            (
                f"{names[link.src]} → {names[link.dst]}",
                *(
                    f"{format_us(times.median_us)} ({residual:+.0%})"
                    for times, residual in zip(link.times, link.residuals, strict=True)
                ),
                format_us(link.fit.latency_us),
                f"{link.fit.bandwidth_gb_s:.1f} GB/s",
            )
            for link in sampled
        ]
        headers = ("median (over fit)", *sizes, "latency", "bandwidth")
        console().print(rows_table(headers, rows))
        if path is not None:
            console().print(f"wrote {path}: use it with --machine {path}", markup=False)
    return told


def _train(data: Path, path: Path, output: OutputChoice) -> dict[str, Any]:
    from cost_model.dataset import build_dataset
    from cost_model.model_file import describe_model, save_model
    from cost_model.store import read_records
    from cost_model.train import fit

    with progress_bar("train", output.quiet or output.json) as progress:
        progress("features", 0.0)
        dataset = build_dataset(read_records(data).records)
        model = describe_model(dataset, fit(dataset, progress=progress))
        save_model(model, path)
    if not output.json:
        console().print(f"wrote {path}: trained on {len(dataset)} groups", markup=False)
    return {"path": str(path), "groups": len(dataset)}


def _tell_groups(
    results: "list[tuple[Device, CollectResult]]", output: OutputChoice
) -> dict[str, Any]:
    import sys

    rows = []
    for device, result in results:
        made = result.collected
        noise = result.noise
        if result.damage:
            print(f"hios: {result.damage}", file=sys.stderr)
        rows.append(
            {
                "device": device.name,
                "cores": len(device.cores),
                "valid": made.valid,
                "rejected": made.rejected,
                "left_out": made.left_out,
                "reasons": made.reasons,
                "known": made.known,
                "repeated": result.repeated,
                "seconds": round(made.seconds, 1),
                "complete": made.is_complete,
                "damaged_lines": [damage.line for damage in result.file.damaged],
                "noise_floor": None
                if noise is None
                else {
                    "pairs": noise.pairs,
                    "visit": noise.visit,
                    "median": noise.median,
                    "p90": noise.p90,
                    "visits": noise.visits,
                    "mape": noise.mape,
                },
            }
        )
    if not output.json:
        from hios_tvm.report.summary import rows_table

        headers = ("device", "measured", "rejected", "known", "again", "noise floor", "time")
        table = [
            (
                f"{row['device']} ({row['cores']} cores)" if row["cores"] else str(row["device"]),
                str(row["valid"]),
                str(row["rejected"]),
                str(row["known"]),
                str(row["repeated"]),
                "–"
                if result.noise is None
                else f"{result.noise.median:.1%} (p90 {result.noise.p90:.1%}, "
                f"{result.noise.pairs} groups)",
                f"{row['seconds']} s",
            )
            for row, (_, result) in zip(rows, results, strict=True)
        ]
        terminal = console()
        terminal.print(rows_table(headers, table))
        for _, result in results:
            for reason, count in result.collected.reasons.items():
                terminal.print(f"not used {count}: {reason}", markup=False)
            if not result.collected.is_complete:
                terminal.print("the time is over; the same command goes on from here")
    return {"out": str(results[0][1].file.path), "devices": rows}
