"""The command that lists the trained networks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .networks import NETWORKS

if TYPE_CHECKING:
    from .networks import Network


def networks(
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, for scripts.")] = False,
) -> None:
    """List the trained networks, what they are for, and whether they can run here.

    A name of this list, or the path of a weights file, is what other
    commands take for a network.

    Example: hdrmerge networks --json
    """
    from .infer import INSTALL, engines

    rows = [_row(network) for network in NETWORKS.values()]
    installed = engines()
    if as_json:
        print(json.dumps({"engines": installed, "networks": rows}, indent=2))
        return
    for row in rows:
        size = f"{row['megabytes']:.1f} MB" if row["megabytes"] is not None else row["state"]
        print(f"{row['name']}  {row['task']}, {size}: {row['summary']}")
        if row["state"] not in ("ready", "not released yet"):
            print(f"  {row['state']}")
        scores = ", ".join(f"{name} {value}" for name, value in row["metrics"].items())
        if scores:
            print(f"  {scores}")
    print(f"engines: {', '.join(installed) or f'none, {INSTALL}'}")


def _row(network: Network) -> dict[str, Any]:
    """Return the table's row and what the file says, with a reason where there is none."""
    from .errors import NetworkError
    from .weights import find, read_card

    row: dict[str, Any] = {
        "name": network.name,
        "task": network.task,
        "summary": network.summary,
        "licence": network.licence,
        "state": "ready",
        "megabytes": None,
        "metrics": {},
        "card": {},
    }
    if not network.sha256:
        return row | {"state": "not released yet"}
    try:
        path = find(network.name)
        card = read_card(path)
    except NetworkError as error:
        return row | {"state": str(error)}
    metrics = card.get("metrics") or {}
    size = round(path.stat().st_size / 1e6, 2)
    return row | {
        "megabytes": size,
        "metrics": metrics if isinstance(metrics, dict) else {"": metrics},
        "card": card,
    }
