"""Draw the ratios with their bars as a PNG."""

from __future__ import annotations

from pathlib import Path

from bench.report import Results, measured_rows, verdict

COLOURS = {"pass": "#2a7f4f", "FAIL": "#b03030", "": "#607080"}


def draw(results: Results, target: Path) -> None:
    """Write the plot; nothing if no row was measured on both sides."""
    rows = [row for row in reversed(measured_rows(results)) if results.ratio(row.key)]
    if not rows:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 0.32 * len(rows) + 1.5))
    ratios = [results.ratio(row.key) or 0.0 for row in rows]
    colours = [COLOURS[verdict(row, results)] for row in rows]
    axes.barh([f"{row.title} ({row.unit})" for row in rows], ratios, color=colours)
    for place, row in enumerate(rows):
        if row.ratio is not None:
            axes.plot([row.ratio, row.ratio], [place - 0.4, place + 0.4], color="black", linewidth=2)
    axes.set_xscale("log")
    axes.axvline(1.0, color="grey", linestyle=":")
    axes.set_xlabel("Podium / LXD 5.0.2 (log scale; black mark: the bar)")
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    pyplot.close(figure)
