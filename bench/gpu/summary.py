"""The short table of what a GPU showed, from the rows that were measured."""

from __future__ import annotations

from typing import Any

from bench.cases.gpu import NEVER_SLOWER, STEP_GOALS, TICKET_GOALS


def summary(found: dict[str, Any]) -> list[str]:
    """The short table: each layer's passes against the better layout of dense, in one precision."""
    lines = [f"{'layer':12} {'precision':9} {'masks':7} {'sparsity':8} {'backend':7} {'dense us':>9} {'us':>9} "
             f"{'ratio':>6} {'must':>5} {'aim':>5} {'error / dense error':>19}"]  # fmt: skip
    for layer, precision in dict.fromkeys((row["layer"], row["precision"]) for row in found["layers"]):
        rows = [row for row in found["layers"] if (row["layer"], row["precision"]) == (layer, precision)]
        best_dense = min(row["total"] for row in rows if row["side"] == "dense")
        keys = dict.fromkeys((row["masks"], row["sparsity"], row["side"]) for row in rows if row["side"] != "dense")
        for masks, sparsity, backend in keys:
            ours = [
                row
                for row in rows
                if (row.get("masks"), row.get("sparsity"), row["side"]) == (masks, sparsity, backend)
            ]
            best = min(row["total"] for row in ours)
            worst = max(
                row["error"][name] / max(row["dense_error"][name], 1e-30) for row in ours for name in row["error"]
            )
            goal = TICKET_GOALS.get((backend, precision), {}).get(sparsity) if masks == "ticket" else None
            goals = f"{goal.must:5.1f} {goal.aim:5.1f}" if goal else " " * 11
            lines.append(f"{layer:12} {precision:9} {masks:7} {sparsity:8.0%} {backend:7} {best_dense:9.1f} "
                         f"{best:9.1f} {best_dense / best:6.2f} {goals} {worst:19.2f}")  # fmt: skip
    if found["auto"]:
        worst_auto = min(found["auto"], key=lambda row: row["microseconds"]["dense"] / row["microseconds"]["auto"])
        times = worst_auto["microseconds"]
        lines.append(f"auto at worst: {times['dense'] / times['auto']:.2f} of dense ({worst_auto['layer']} at "
                     f"{worst_auto['sparsity']:.0%}; must {NEVER_SLOWER.must})")  # fmt: skip
    for step in found["steps"]:
        times = step["microseconds"]
        best = {
            side: min(value for name, value in times.items() if name.startswith(side))
            for side in dict.fromkeys(name.split(",")[0] for name in times)
        }
        for side in [name for name in best if name != "dense"]:
            goal = f" (must {STEP_GOALS[side].must}, aim {STEP_GOALS[side].aim})" if side in STEP_GOALS else ""
            lines.append(
                f"graphed training step, {step['network']} at {step['sparsity']:.0%}: masked dense {best['dense']:.0f} "
                f"us, {side} {best[side]:.0f} us, ratio {best['dense'] / best[side]:.2f}{goal}"
            )
    return lines
