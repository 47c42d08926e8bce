"""Tables of ``docs/cost-model.md``, from the results of the cost model's benchmarks."""

from collections.abc import Callable
from typing import Any

__all__ = ["RESULT_OF", "TABLES"]


def cost_model(result: dict[str, Any]) -> str:
    """Return the table of `benchmarks.cost_model`: each split, with what it stands on."""
    data, noise = result["data"], result["data"]["noise"]
    floor = "unknown"
    if noise is not None:
        floor = (
            f"{noise['mape']:.1%} ({noise['visit']:.1%} for one visit, p90 {noise['p90']:.1%}; "
            f"{noise['visits']:.1f} visits a group)"
        )
    head = f"{data['groups']} groups of {data['operators']} operators"
    lines = [
        f"{head} from {len(data['networks'])} networks; noise floor {floor}.",
        "",
        (
            "| held out | predicted by | MAPE (95 % interval) | p90 | Spearman(y) | decided right "
            "| in interval | skill over LB |"
        ),
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for split in result["splits"]:
        rows = {"**learned**": split["learned"], **split["baselines"]}
        for number, (name, row) in enumerate(rows.items()):
            mape, skill = row["mape"], row["skill"]
            covered = "" if row["coverage"] is None else f"{row['coverage']:.1%}"
            head = f"{split['split']} ({row['groups']} groups)" if number == 0 else ""
            lines.append(
                f"| {head} | {name} | {mape['value']:.1%} ({mape['low']:.1%}–{mape['high']:.1%}) "
                f"| {row['p90']:.1%} | {row['spearman']:.3f} | {row['decided']:.1%} | {covered} "
                f"| {skill['value']:.2f} ({skill['low']:.2f}–{skill['high']:.2f}) |"
            )
    return "\n".join(lines)


def cost_model_curve(result: dict[str, Any]) -> str:
    """Return the learning curve of `benchmarks.cost_model`."""
    lines = ["| groups trained on | MAPE of networks left out (95 % interval) |", "|--:|--:|"]
    lines += [
        f"| {point['groups']:.0f} | {point['mape']:.1%} ({point['low']:.1%}–{point['high']:.1%}) |"
        for point in result["learning_curve"]
    ]
    return "\n".join(lines)


def cost_model_networks(result: dict[str, Any]) -> str:
    """Return the error of each network left out."""
    lines = ["| network left out | groups | MAPE |", "|---|--:|--:|"]
    for split in result["splits"]:
        if split["split"] == "unseen-model":
            lines += [
                f"| {name} | {count} | {error:.1%} |"
                for name, (error, count) in split["by_fold"].items()
            ]
    return "\n".join(lines)


def cost_model_importance(result: dict[str, Any]) -> str:
    """Return the features that reduced the loss most."""
    lines = ["| feature | share of the gain |", "|---|--:|"]
    lines += [f"| `{one['feature']}` | {one['share']:.1%} |" for one in result["importance"][:12]]
    return "\n".join(lines)


def cost_model_regret(result: dict[str, Any]) -> str:
    """Return the table of `benchmarks.cost_model_regret`: a row a network and scheduler."""
    lines = [
        (
            "| network | scheduler | in sequence | exhaustive profile | learned | regret (90 %) "
            "| groups measured: exhaustive, learned | seconds: exhaustive, learned |"
        ),
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['model']} | `{row['scheduler']}` | {milliseconds(row['sequential_us'])} ms "
        f"| {milliseconds(row['exhaustive_us'])} ms | {milliseconds(row['learned_us'])} ms "
        f"| {row['regret']:+.1%} ({row['regret_low']:+.1%} to {row['regret_high']:+.1%}) "
        f"| {row['stages_asked']}, 0 "
        f"| {row['stage_seconds']:.1f}, {row['learned_seconds']:.2f} |"
        for row in result["rows"]
    ]
    return "\n".join(lines)


def cost_model_time(result: dict[str, Any]) -> str:
    """Return how long deciding takes for networks too large to profile exhaustively."""
    lines = [
        (
            "| network | scheduler | operators | stages asked about | measuring all, extrapolated "
            "| learned: operators alone | learned: deciding |"
        ),
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['model']} | `{row['scheduler']}` | {row['operators']} | {row['stages_asked']} "
        f"| {row['exhaustive_seconds']:.0f} s ({row['stages_sampled']} sampled, "
        f"{row['seconds_a_stage']:.2f} s each) | {row['solo_seconds']:.1f} s "
        f"| {row['decide_seconds']:.2f} s |"
        for row in result["large"]
    ]
    return "\n".join(lines)


def milliseconds(time_us: float) -> str:
    """Return a time for a table."""
    return f"{time_us / 1e3:.2f}" if time_us < 1e5 else f"{time_us / 1e3:.1f}"


_PREDICTION = ("cost_model", "cost_model_curve", "cost_model_importance", "cost_model_networks")

TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "cost_model": cost_model,
    "cost_model_curve": cost_model_curve,
    "cost_model_importance": cost_model_importance,
    "cost_model_networks": cost_model_networks,
    "cost_model_regret": cost_model_regret,
    "cost_model_time": cost_model_time,
}
TABLES |= {f"h200_{name}": TABLES[name] for name in _PREDICTION}
"""How each table is made from its result; those of a GPU are made alike."""

RESULT_OF = {
    "cost_model_curve": "cost_model",
    "cost_model_importance": "cost_model",
    "cost_model_networks": "cost_model",
    "cost_model_time": "cost_model_regret",
    **{f"h200_{name}": "h200/cost_model" for name in _PREDICTION},
}
"""Tables made from the result of another name."""
