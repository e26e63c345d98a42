"""The report as one HTML page that needs nothing beside it: no script, no outside resource."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from lth_sparse.report.document import again, document, plots
from lth_sparse.report.gallery import Picture
from lth_sparse.report.instability import ABOUT as ABOUT_INSTABILITY
from lth_sparse.report.instability import barriers_table
from lth_sparse.report.tables import choices_tables, explanations, facts, proofs_table, rounds_table
from lth_sparse.report.words import (
    DASH,
    TIMES,
    choice,
    emulates,
    field,
    headline,
    labelled,
    number,
    percent,
    progress,
    several,
    subject,
    times,
    weights_left,
)
from lth_sparse.storage.arms import beside
from lth_sparse.storage.record import STEP, Record


def page(info: dict[str, Any], record: Record, gallery: Sequence[Picture]) -> str:
    """The whole report, with the plots of `gallery` inside."""
    chosen_how = f"<p>{escape(' '.join(choice(info, record)))}</p>" if len(record.rounds) > 1 else ""
    title = f"Lottery tickets: {subject(info)}"
    return document(
        title,
        f"{title}; {progress(info, record)}",
        labelled(info, headline(info, record)),
        f"{_notice(info)}{chosen_how}\n{_tiles(info, record)}",
        [
            ("rounds", "Rounds", _rounds(info, record)),
            *([("instability", "Instability", _instability(record))] if record.barriers else []),
            # What was left out comes last, where it leaves no hole beside a plot.
            plots(sorted(gallery, key=lambda plot: plot.png is None)),
            *([("choices", "What was measured and chosen", _choices(record))] if record.chosen else []),
            ("proof", "Proof of the rewind", _proof(info, record)),
            ("settings", "Settings", _settings(info)),
            ("environment", "Data, network and machine", _environment(info)),
            again(str(info.get("command") or "The command was not recorded.")),
        ],
    )


def _notice(info: dict[str, Any]) -> str:
    notices = [field(info, "dataset", "notice"), _EMULATED if emulates(info) else None]
    return "".join(
        f'<p class="notice" role="note"><strong>Note:</strong> {escape(str(notice))}</p>\n'
        for notice in notices
        if notice
    )


_EMULATED = (
    "No ticket here was rewound, and the optimizer lived on from round to round: this run emulates a mistake of "
    "published programs, to show what it does. The accuracies are not those of lottery tickets."
)


def _tiles(info: dict[str, Any], record: Record) -> str:
    if not record.rounds:
        return ""
    dense = record.rounds[0]
    tiles = [("Dense network", percent(dense.accuracy_retrained), "test accuracy with all weights")]
    if len(record.rounds) == 1:
        tiles.append(("Early stop", number(dense.early_stop_iteration), "iteration of minimum validation loss"))
    else:
        best = record.best_ticket()
        controls = "".join(f"; {arm.words} {percent(accuracy)}" for arm, accuracy in beside(best))
        total = field(info, "network", "weights")
        tiles = [
            (
                "Weights left",
                weights_left(best.density),
                f"{best.live_weights:,} of {total:,} weights" if total else f"{best.live_weights:,} weights",
            ),
            ("Ticket", percent(best.accuracy_retrained), f"test accuracy{controls}"),
            *tiles,
            (
                "Early stop",
                number(best.early_stop_iteration),
                f"iteration of minimum validation loss; dense {number(dense.early_stop_iteration)}",
            ),
            (
                "Speedup",
                times(best.speedup),
                f"of a training step, backend {info.get('backend') or 'unknown'}",
            ),
            ("Ticket file", f"round-{best.round:02d}", f"tickets/round-{best.round:02d}.safetensors"),
        ]
    items = "\n".join(
        f"<div><dt>{escape(label)}</dt><dd><b>{escape(value)}</b><span>{escape(text)}</span></dd></div>"
        for label, value, text in tiles
        if value != DASH
    )
    return f'<dl class="tiles">\n{items}\n</dl>'


def _rounds(info: dict[str, Any], record: Record) -> str:
    if not record.rounds:
        return '<p class="quiet">No round finished yet.</p>'
    together = f"<p>{escape(several(info))}.</p>\n" if several(info) else ""
    return f"""{together}<p>A round wins when its validation accuracy is at least that of the dense network. The same
rows, in full precision, are in <code>rounds.csv</code>.</p>
{rounds_table(record)}
{explanations(record)}"""


def _instability(record: Record) -> str:
    return f"""<p>{escape(ABOUT_INSTABILITY)} The same rows are in <code>instability.csv</code>, the points in
<code>instability-paths.csv</code>.</p>
{barriers_table(record.barriers)}"""


_BY_AUTO = """For each layer and operation the fastest backend, measured on the first batch: its least time in
milliseconds, then in brackets that of the others. Another one than masked dense has to be faster than it by 5 %; one
that leads by 1.3 times is not measured again while the layer's live weights change by less than that. Where all of the
step is not faster, masked dense PyTorch trains the round; each side was timed in its better memory format.
"""


def _choices(record: Record) -> str:
    by_auto = _BY_AUTO if any(row.operation != STEP for row in record.chosen) else ""
    return f"""<p>{by_auto}The whole network is in the memory format that its step is faster in. The choices are kept in
<code>choices.json</code>; given to <code>--choices</code>, they repeat this run bit for bit.</p>
{choices_tables(record.chosen)}"""


def _proof(info: dict[str, Any], record: Record) -> str:
    digest = field(info, "rewind", "sha256")
    if not digest:
        saved = '<p class="quiet">The rewind weights have not been saved yet.</p>'
    else:
        step = field(info, "rewind", "iteration")
        when = "" if step is None else f", saved at iteration {number(step)}"
        rewound = field(info, "config", "pruning", "rewind") in (None, "weights")
        starts = (
            "Every ticket starts from"
            if rewound
            else "No ticket was rewound: it goes on from trained weights. There is"
        )
        saved = f"""<p>{starts} one copy of the weights{when}.
Its SHA-256:</p>
<pre class="hash">{escape(str(digest))}</pre>"""
    if not record.proofs:
        return f'{saved}\n<p class="quiet">Nothing has been rewound yet, so nothing has been checked.</p>'
    return f"""{saved}
<p>The run checked these statements as it went; had one failed, it would have stopped.</p>
{proofs_table(record.proofs)}"""


def _settings(info: dict[str, Any]) -> str:
    config = info.get("config") or {}
    general = {name: value for name, value in config.items() if not isinstance(value, dict)}
    sections = {"run": general} | {name: value for name, value in config.items() if isinstance(value, dict)}
    return _groups(sections)


def _environment(info: dict[str, Any]) -> str:
    dataset = {name: value for name, value in (info.get("dataset") or {}).items() if name != "notice"}
    if dataset.get("image_shape"):
        dataset["image_shape"] = f" {TIMES} ".join(str(size) for size in dataset["image_shape"])
    machine = {"backend": info.get("backend")} | (info.get("environment") or {})
    return _groups({"data set": dataset, "network": info.get("network") or {}, "environment": machine})


def _groups(groups: dict[str, dict[str, Any]]) -> str:
    blocks = "\n".join(
        f"<div><h3>{escape(name.capitalize())}</h3>\n"
        f"{facts((key.replace('_', ' '), value) for key, value in entries.items())}</div>"
        for name, entries in groups.items()
        if entries
    )
    return f'<div class="groups">\n{blocks}\n</div>'
