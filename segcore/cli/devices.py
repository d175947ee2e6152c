"""``segcore devices``: the devices found here."""

from __future__ import annotations

import click

from segcore.cli.options import json_option


@click.command()
@json_option
def devices(as_json: bool) -> None:
    """List CUDA, MPS and CPU devices: whether each is available, and whether its energy use can be measured."""
    from segcore.cli.output import NO, YES, show, show_json
    from segcore.inference.devices import detect_device, find_devices
    from segcore.report.table import Table

    found = find_devices()
    energy = {info.name: _energy(info.name) for info in found if info.available}
    default = str(detect_device())
    if as_json:
        rows = [{**vars(info), **energy.get(info.name, {})} for info in found]
        show_json({"auto": default, "devices": rows})
        return
    table = Table(
        ("device", "available", "detail", "memory, MB"),
        tuple((d.name, YES if d.available else NO, d.detail, d.memory_bytes and d.memory_bytes / 1e6) for d in found),
        notes=tuple(
            f"energy of {name}: {each['energy_counter'] or 'not measured: ' + str(each['why_no_energy'])}"
            for name, each in energy.items()
        ),
    )
    show(table, f"auto is {default}")


def _energy(device: str) -> dict[str, str | None]:
    """Return the name of the energy counter of a device, or why there is none."""
    from segcore.core.errors import DeviceError
    from segcore.measurement.energy import open_counter

    try:
        return {"energy_counter": open_counter(device).name, "why_no_energy": None}
    except DeviceError as error:
        return {"energy_counter": None, "why_no_energy": str(error)}
