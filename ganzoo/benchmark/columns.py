"""The columns of a board, told once for the terminal, Markdown, CSV and the page: what they show and what it means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..console import duration
from ..errors import RecipeError, did_you_mean
from .board import BADGES, Board, Row, Value


@dataclass(frozen=True)
class Cell:
    """What a table shows, and the number that it is sorted by; None comes last."""

    text: str
    order: float | None = None


@dataclass(frozen=True)
class Column:
    """A column: its title, what it means, and its cell for a row."""

    key: str
    title: str
    help: str
    cell: Callable[[Board, Row], Cell]
    number: bool = True


def number(value: float | None, digits: int = 3) -> str:
    """Return a number in so many significant digits, without an exponent where a person can read it so."""
    if value is None:
        return ""
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e+" in text and abs(value) < 1e9 else text


def measured(value: Value, digits: int = 3) -> str:
    """Return a mean with its standard error."""
    if value.mean is None:
        return ""
    return number(value.mean, digits) + (f" ± {number(value.se, 2)}" if value.se is not None else "")


def count(value: float | None) -> str:
    """Return a large number shortly: 1.07M, 200k."""
    if value is None:
        return ""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:g}"


def _score(metric: str, digits: int = 3) -> Callable[[Board, Row], Cell]:
    def cell(board: Board, row: Row) -> Cell:
        value = row.score(board.key(metric))
        return Cell(measured(value, digits), value.mean)

    return cell


def _beside(metric: str, digits: int) -> Callable[[Board, Row], Cell]:
    def cell(board: Board, row: Row) -> Cell:
        key = board.key(metric)
        value, unseen = row.score(key).mean, row.beside(key, "heldout")
        text = number(value, digits) + (f" ({number(unseen, digits)})" if value is not None and unseen is not None else "")
        return Cell(text, value)

    return cell


def _rank(board: Board, row: Row) -> Cell:
    return Cell(row.rank, (row.best + row.worst) / 2 if row.best else None)


def _name(board: Board, row: Row) -> Cell:
    shown = [BADGES[badge][0] for badge in row.badges]
    return Cell(row.name + "".join(f" [{badge}]" for badge in shown))


def _floor(board: Board, row: Row) -> Cell:
    key = board.key("FD")
    value, floor = row.score(key).mean, row.beside(key, "floor_theory")
    ratio = value / floor if value is not None and floor else None
    return Cell(number(ratio), ratio)


def _parameters(board: Board, row: Row) -> Cell:
    value = row.first["model"]["params_g"] or None
    return Cell(count(value), value)


def _seen(board: Board, row: Row) -> Cell:
    value = row.first["training"]["images_seen"] if row.first["training"] else None
    return Cell(count(value), value)


def _time(board: Board, row: Row) -> Cell:
    value = row.first["training"]["wall_s"] if row.first["training"] else None
    return Cell("" if value is None else duration(value), value)


def _speed(board: Board, row: Row) -> Cell:
    value = row.first["timing"]["sample_ms_per_img"]
    return Cell(number(value, 2), value)


def _seeds(board: Board, row: Row) -> Cell:
    trained = len(row.entries) if row.first["training"] else 0
    return Cell(str(trained) if trained else "", float(trained) if trained else None)


def _verified(board: Board, row: Row) -> Cell:
    return Cell(row.verified if row.first["kind"] == "model" and row.scored else "")


COLUMNS: Sequence[Column] = (
    Column("rank", "rank", "Range of ranks: a model is above another only where their 95 % intervals do not meet.", _rank),
    Column("model", "model", "Name of the recipe; badges beside it.", _name, number=False),
    Column("fd", "FD", "Fréchet distance to the training images, mean ± standard error over the evaluation seeds; "
           "smaller is better.", _score("FD")),
    Column("xfloor", "x floor", "FD over what a perfect generator would score with as many samples (Gaussian "
           "approximation); 1.0 cannot be told from real images at this number.", _floor),
    Column("kd", "KD", "Kernel distance, unbiased: it may be negative, which means about zero; smaller is better.",
           _score("KD")),
    Column("density", "density", "How deep samples lie among real ones; about 1 for real images, larger for samples more "
           "typical than those.", _score("Density")),
    Column("coverage", "coverage", "Share of real images that have a sample among their nearest neighbours; larger is more "
           "diverse.", _score("Coverage")),
    Column("precision", "precision", "Share of samples inside the real images' manifold; larger is better.",
           _score("Precision")),
    Column("recall", "recall", "Share of real images inside the samples' manifold; larger is better.", _score("Recall")),
    Column("is", "IS", "How sure and how varied the extractor's own classes are (IS as published in arXiv:1606.03498); "
           "larger is better, at most their number.",
           _score("IS")),
    Column("fdinf", "FD-inf", "FD at infinitely many samples, by a line in 1/N; may be negative near zero.",
           _score("FD-inf")),
    Column("ppl", "PPL", "Perceptual path length: how smoothly samples change with their latents; smaller is better.",
           _score("PPL")),
    Column("authpct", "AuthPct", "Percent of samples that are no closer to a training image than that is to its neighbour; "
           "in brackets what unseen real images score. Far below that: copies.", _beside("AuthPct", 3)),
    Column("c_t", "C_T", "Are samples closer to training images than unseen real ones are? Far below 0: copies; far above: "
           "unlike the data. In brackets what unseen real images score.", _beside("C_T", 2)),
    Column("params", "params G", "Numbers in the generator.", _parameters),
    Column("images", "images seen", "Real samples seen in training.", _seen),
    Column("time", "training", "Time of the training on its machine, by its own log.", _time),
    Column("ms", "ms/image", "Milliseconds to draw a sample.", _speed),
    Column("seeds", "train seeds", "Trainings behind the row; with 1 nothing is known of the spread between them.", _seeds),
    Column("verified", "verified", "What others found who scored the checkpoint again.", _verified, number=False),
)  # fmt: skip
SHORT = (
    *("rank", "model", "fd", "xfloor", "kd", "density", "coverage", "authpct", "c_t"),
    *("params", "images", "time", "seeds"),
)


def chosen(keys: Sequence[str] = ()) -> list[Column]:
    """Return the columns of these keys, or all; RecipeError for one that there is not."""
    known = {column.key: column for column in COLUMNS}
    for key in keys:
        if key not in known:
            raise RecipeError(f"there is no column {key!r}{did_you_mean(key, known)} (there are: {', '.join(known)})")
    return [known[key] for key in keys] if keys else list(COLUMNS)


def sort(board: Board, rows: Sequence[Row], key: str) -> list[Row]:
    """Return rows sorted by a column, smallest first and missing values last; as they are without a key."""
    if not key:
        return list(rows)
    column = chosen([key.lstrip("-")])[0]
    turned = key.startswith("-")

    def order(row: Row) -> tuple[bool, float, str]:
        cell = column.cell(board, row)
        value = cell.order if cell.order is not None else 0.0
        return (column.number and cell.order is None, -value if turned else value, cell.text)

    return sorted(rows, key=order)
