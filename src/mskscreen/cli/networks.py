"""The verb `networks`: the six networks, published and measured."""

from __future__ import annotations

from mskscreen.cli.common import Format, FormatOption, needs, progress, show


def networks(
    form: FormatOption = Format.TABLE,
) -> None:
    """List the six networks of the release with their size and cost, measured beside published.

    GFLOPs are 10^9 multiply-adds of convolutions and linear layers for one image. The published figures also
    count batch norms, which cost nothing once folded.
    """
    with needs("train"):
        from mskscreen.networks import NETWORKS
        from mskscreen.networks.complexity import measure
    rows = []
    with progress("counting", len(NETWORKS)) as advance:
        for name, published in NETWORKS.items():
            size = published.input_size
            found = measure(name, (size, size))
            rows.append(
                {
                    "name": name,
                    "parameters": found.parameters,
                    "gflops": round(found.gflops, 4),
                    "input_size": size,
                    "published_mparams": published.mparams,
                    "published_gflops": published.gflops,
                }
            )
            advance(1)
    show(rows, form)
