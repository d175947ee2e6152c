"""``segcore models``: the models, their cost and their weights."""

from __future__ import annotations

import click

from segcore.cli.options import fetch_settings, json_option, offline_option


@click.command()
@click.option("--inspect", "path", metavar="FILE", help="Print what the file of a model says about itself.")
@json_option
@offline_option
def models(path: str | None, as_json: bool, offline: bool) -> None:
    """List every model: parameters, multiply-accumulates of one 520x520 photo, and whether its weights are here.

    With --inspect, read an ONNX, OpenVINO or TFLite file (.onnx, .xml, .tflite), or a model file that names one. Prints
    what it says about itself, what is assumed where it says nothing, and the model file that says both.
    """
    if path is not None:
        from segcore.cli.inspection import inspect

        inspect(path, as_json)
        return
    from segcore.cli.output import NO, YES, show, show_json
    from segcore.inference.models import LISTED_SIZE, listed_cost, model_names, weights_status
    from segcore.report.table import Table

    settings = fetch_settings(offline)
    found = [(name, *listed_cost(name), weights_status(name, settings)) for name in model_names()]
    if as_json:
        rows = [
            {
                "model": name,
                "parameters": parameters,
                "gmacs": cost,
                "weights": weights.name,
                **{key: getattr(weights, key) for key in ("size_bytes", "url", "published")},
                "path": str(weights.path) if weights.path else None,
            }
            for name, parameters, cost, weights in found
        ]
        show_json({"gmacs_shape": [LISTED_SIZE] * 2, "models": rows})
        return
    notes = ["GMACs are of one 520x520 photo, without the auxiliary head."]
    if any(weights.path is None for *_, weights in found):
        notes.append("`segcore fetch --model NAME` downloads the weights that are not here.")
    table_rows = tuple(
        (
            name,
            parameters / 1e6,
            cost,
            weights.size_bytes / 1e6 if weights.size_bytes else None,
            YES if weights.path else NO,
        )
        for name, parameters, cost, weights in found
    )
    show(Table(("model", "parameters, M", "GMACs", "weights, MB", "here"), table_rows, notes=tuple(notes)))
